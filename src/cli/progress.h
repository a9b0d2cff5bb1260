/* A line that shows how far a long step is: a bar on a terminal, a line per stage elsewhere. On
 * stderr. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "base/macros.h"

#include <stdint.h>

struct image_progress;

struct progress {
    bool tty;
    unsigned width;    /* columns */
    unsigned stage_nr; /* last stage shown, 0 = none */
    int64_t stage_start_ns;
    bool drawn; /* the line holds a bar that must be wiped */
    bool cancelled;
    bool lines;       /* no terminal, but a line for each tenth */
    unsigned tenth;   /* the last one shown */
    int64_t start_ns; /* of the first bytes; 0 = none yet */
    int64_t drawn_ns; /* when the bar was drawn */
    const char *verb; /* the last one of progress_bytes() */
};

/** Ready for progress_report(). Until progress_done(), Ctrl-C and SIGTERM cancel instead of
 * killing. */
void progress_init(struct progress *p);

/** For image_build_opts: @arg is the struct progress. -1 once the user has cancelled. */
int progress_report(const struct image_progress *step, void *arg);

/** So many bytes of @total (0 = nobody knows) are @verb ("converted", a constant): a bar with rate
 * and time left. Another verb begins another bar. -1 once the user has cancelled. */
int progress_bytes(struct progress *p, const char *verb, uint64_t done, uint64_t total);

/** Wipe the bar and give the signals back. */
void progress_done(struct progress *p);

#endif
