/* posada run: its options, and the steps from them to an exit status.
 *
 *   values -> run_configure() -> run_prepare_image() -> run_session()  -> status */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "base/error.h"
#include "cli/cmd.h"
#include "cli/instance.h"
#include "vm/vm.h"

enum { RUN_MAX_FORWARDS = 64, RUN_MAX_OWNED = 64 };

struct run_values {
    struct cmd_common common;
    /* machine */
    int64_t cpus;
    uint64_t memory;
    const char *engine;
    const char *cpu;
    const char *vlen;
    const char *name;
    bool rm;
    uint64_t disk_size;
    /* boot */
    const char *kernel, *initrd, *append, *firmware, *payload, *flash;
    const char *arch, *mirror;
    /* devices */
    struct opt_list disks, volumes, ports;
    const char *net, *mac, *console, *vsock;
    bool rng, balloon;
    /* command */
    struct opt_list env;
    const char *workdir;
    int64_t timeout_ms;
    bool json;
    /* debugging */
    const char *gdb;
    bool gdb_wait;
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
    struct vm_config config;
    struct net_forward forwards[RUN_MAX_FORWARDS];
    char *owned[RUN_MAX_OWNED]; /* strings that config borrows */
    size_t owned_count;
    struct image *image;      /* NULL: booted from files */
    struct command *command;  /* NULL: the guest has our terminal */
    struct instance instance; /* zeroed paths: none */
    int dump_fd, trace_fd;    /* -1 = none */
};

/** Keep @s (heap, may be NULL = no memory) until run_done(); returns it, or NULL with @err set. */
char *run_own(struct run *run, char *s, struct error *err);

/** Everything of config that follows from the options alone. -EINVAL: the options are wrong. */
must_check int run_configure(struct run *run, struct error *err);

/** With an IMAGE operand: find it or build it, and give the machine its kernel, initrd, disk and
 * arguments. */
must_check int run_prepare_image(struct run *run, struct error *err);

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
