/* From an instance's configuration to a machine's. */
#ifndef MONITOR_MACHINE_H
#define MONITOR_MACHINE_H

#include "store/store.h"
#include "vm/config.h"

enum { MACHINE_OWNED_MAX = 64 };

/** A vm_config with what it borrows. Zeroed or filled: end with machine_done(). */
struct machine {
    struct vm_config config;
    struct net_forward forwards[CONFIG_LIST_MAX];
    char *owned[MACHINE_OWNED_MAX];
    size_t owned_count;
    bool has_vars; /* vars_fd is what the firmware of a temporary machine keeps its variables in */
    int vars_fd;
};

/** The machine of @c. @in: the instance whose files and root disk it has; NULL: files are as @c
 * names them, and there is no root disk. Console, debugging and ports are left to the caller; names
 * are borrowed from @name. @volume_args: the guest mounts the volumes by kernel arguments, as those
 * of images do. -EINVAL: something named is not there, or the host lacks the memory. */
must_check int machine_init(struct machine *m, const char *name, const struct instance_config *c,
                            const struct instance *in, bool volume_args, struct error *err);
void machine_done(struct machine *m);

#endif
