/* Live copies: running at once. */
#ifndef CLI_COPY_LIVE_H
#define CLI_COPY_LIVE_H

#include "cli/point.h"

/** Make @to a running copy of what @from is now, which runs, or was at a snapshot that has its
 * state; with a name and address of its own in the guest if that has the agent, else with a note on
 * stderr unless @quiet. -ENOTCONN: it does not run; -EINVAL: the snapshot has no state. */
must_check int copy_live(const struct point *from, const char *to, bool quiet, struct error *err);

#endif
