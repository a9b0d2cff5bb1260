/* posada run: its options, and the steps from them to an exit status.
 *
 *   values -> run_configure() -> run_prepare_image() -> run_session()  -> status */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "base/error.h"
#include "cli/cmd.h"
#include "cli/guest.h"
#include "monitor/monitor.h"

struct run_values {
    struct cmd_common common;
    struct guest_values guest;
    const char *name;
    bool rm, detach;
    /* boot */
    const char *kernel, *initrd, *firmware, *payload, *flash;
    const char *vsock;
    /* command */
    struct opt_list env;
    const char *workdir;
    int64_t timeout_ms;
    bool json;
    /* debugging */
    const char *gdb;
    bool gdb_wait, stats, perf_map, gdb_jit;
    uint64_t translation_cache;
    const char *dump_elf;
    struct opt_list trace;
    const char *trace_file, *dump, *dump_file, *dump_dtb;
};

struct command;
struct image;

/** One run from start to end. Main thread; zeroed at first, ended by run_done(). */
struct run {
    const struct cmd *cmd;
    const struct run_values *v;
    const struct opt_args *args;
    char name[IMAGE_NAME_MAX];    /* of the machine */
    struct instance_config guest; /* what the machine is to be */
    struct machine machine;       /* without an instance: it, from run_prepare_image() on */
    struct vm_config config;      /* what is beside `guest`; of the running machine, all of it */
    struct error why;             /* why KVM was chosen, or was not; "" = the user chose */
    struct image *image;          /* NULL: booted from files, or an instance */
    struct command *command;      /* NULL: the guest has our terminal */
    struct instance *instance;    /* NULL = none; its run lock is held */
    int dump_fd, trace_fd;        /* -1 = none */
};

/** Everything that follows from the options alone. -EINVAL: the options are wrong. */
must_check int run_configure(struct run *run, struct error *err);

/** With an IMAGE operand: take or make its instance; else, or with --rm, make run->machine. */
must_check int run_prepare_image(struct run *run, struct error *err);

/** Add to @c what no configuration has: debugging, command ports, --vsock. */
void run_adjust(const struct run *run, struct vm_config *c);

/** Start the machine, serve terminal and signals until it stops; the exit status. */
int run_session(struct run *run);

/** Free everything, remove what was temporary. */
void run_done(struct run *run);

/** Does the run execute `-- COMMAND`? */
static inline bool run_has_command(const struct run *run)
{
    return run->args->rest_n > 0;
}

#endif
