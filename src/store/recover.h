/* What interrupted commands leave of an instance, and who needs its layers. */
#ifndef STORE_RECOVER_H
#define STORE_RECOVER_H

#include "store/store.h"

/** Bring a locked instance that does not run to where an interrupted command would have brought it,
 * or come from: snapshots that were never whole go, a restore's configuration gets its place, files
 * that nothing names are removed. */
must_check int instance_recover(const struct instance *in, struct error *err);

/** Remove the files of layers and states that its tree does not name. The lock is held. */
int instance_sweep(const struct instance *in, struct error *err);

/** Forget the saved state from which it would go on, if it has one. The lock is held. */
must_check int instance_drop_state(const struct instance *in, struct error *err);

/** The text of instance.yaml; heap. */
must_check int instance_config_text(const struct instance *in, char **ret, struct error *err);

/** Which instances lie on layers of @name: by reading all trees. *@ret is for tree_needs_done(),
 * also on failure. An instance whose tree cannot be read is an error: it might need anything. */
must_check int store_needs(const char *name, struct tree_needs *ret, struct error *err);

/** -EBUSY with a sentence if another instance needs any layer of @name. */
must_check int store_check_unneeded(const char *name, const char *to_what, struct error *err);

#endif
