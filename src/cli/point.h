/* "NAME/SNAPSHOT" operands, and what commands on snapshots share. */
#ifndef CLI_POINT_H
#define CLI_POINT_H

#include "cli/cmd.h"
#include "cli/progress.h"
#include "store/store.h"

struct point {
    char name[64];                  /* of the instance */
    char snapshot[TREE_NAME_BYTES]; /* "" = none given */
};

/** -EINVAL unless @text is NAME or NAME/SNAPSHOT; with @need, the latter. */
must_check int point_parse(const char *text, bool need, struct point *ret, struct error *err);

/** A name for a snapshot that was given none: snap1, snap2... the first that is free. */
must_check int point_new_name(const char *instance, char ret[TREE_NAME_BYTES], struct error *err);

/** Take a snapshot, whether it runs or not, with progress on stderr unless @p is NULL. @disk_only
 * leaves the machine's state out. */
must_check int point_take(const char *instance, const char *snapshot, const char *description,
                          bool disk_only, struct progress *p, struct error *err);

/** Have what nobody wants any more merged: here, with progress, if the locked @in does not run;
 * else by its monitor, in the background. */
must_check int point_clean(struct instance *in, struct progress *p, struct error *err);

/** snapshots_copy() from the locked @from, of which nothing is merged meanwhile: its monitor, if it
 * @runs, is asked to rest. */
struct snapshots_copy;
must_check int point_copy(const struct instance *from, struct instance *to,
                          const struct snapshots_copy *o, bool runs, struct error *err);

/** For snapshots_*(): @arg is a struct progress; cancelled by Ctrl-C. */
int point_progress(void *arg, uint64_t done, uint64_t total);

#endif
