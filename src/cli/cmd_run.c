/* posada run: the table of its options, and its steps. See cli/run.h. */
#include "base/fd.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/run.h"
#include "cli/verbs.h"
#include "image/image.h"

#include <errno.h>
#include <stdlib.h>

void run_done(struct run *run)
{
    command_free(run->command);
    image_free(run->image);
    instance_close(run->instance);
    machine_done(&run->machine);
    config_done(&run->guest);
    trace_set_fd(STDERR_FILENO);
    fd_close(run->trace_fd);
    fd_close(run->dump_fd);
    *run = (struct run){0};
}

/** --detach: what `posada launch` does. */
static int run_detached(const struct cmd *cmd, const struct run_values *v, struct opt_args *args)
{
    struct error err = {0};

    if (!args->n)
        return cmd_usage(cmd, "--detach needs an image, such as 'debian'");
    if (args->has_rest || v->rm || v->timeout_ms || v->json)
        return cmd_usage(cmd, "--detach excludes a command, --rm, --timeout and --json");
    int r = launch(&v->guest, args->v[0], v->name, true, &err);
    return r ? cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

static int run_run(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct run *run;
    struct error err = {0};
    int status;

    if (((const struct run_values *)values)->detach)
        return run_detached(cmd, values, args);
    run = calloc(1, sizeof(*run));
    if (!run) {
        (void)error_set(&err, ENOMEM, "out of memory");
        return cmd_fail(cmd, CLI_ERROR, &err);
    }
    run->cmd = cmd;
    run->v = values;
    run->args = args;
    run->dump_fd = run->trace_fd = -1;
    int r = run_configure(run, &err);
    if (r) {
        status = cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, &err);
    } else {
        r = run_prepare_image(run, &err);
        status = r ? cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : run_session(run);
    }
    run_done(run);
    free(run);
    return status;
}

static const struct opt_def run_opts[] = {
    GUEST_OPT_ROWS(struct run_values),
    {.name = "name",
                         .short_name = 'n',
                         OPT_INTO_STRING(struct run_values,                                                                                                                             name),
                         .arg = "NAME",
                         .group = "Machine",
                         .help =
         "Name of the instance, which keeps its disk under that name; also the guest's host name for DHCP. "
         "Default: the image's name"},
    {.name = "rm",
                         OPT_INTO_FLAG(struct run_values,                                                                                                                    rm),
                         .group = "Machine",
                         .help =
         "Keep nothing: the guest starts from the image, and what it writes to its disk is gone with it"                                                                                                                                                                    },
    {.name = "detach",
                         .short_name = 'd',
                         OPT_INTO_FLAG(struct run_values,                                                                                                                               detach),
                         .group = "Machine",
                         .help = "Make and start an instance in the background, as 'posada launch' does"                                                     },
    {.name = "timeout",
                         .short_name = 't',
                         OPT_INTO_DURATION(struct run_values,                                                                                                                           timeout_ms),
                         .arg = "TIME",
                         .group = "Machine",
                         .help =
         "Stop the machine after this time (500ms, 30s, 5m, 1h; seconds without a suffix), with exit status 124"},

    {.name = "kernel",
                         .short_name = 'k',
                         OPT_INTO_STRING(struct run_values,                                                                                                                                             kernel),
                         .arg = "FILE",
                         .group = "Boot without an image",
                         .help = "Kernel: a Linux Image (also compressed) or an ELF program"},
    {.name = "initrd",
                         .short_name = 'i',
                         OPT_INTO_STRING(struct run_values,                                                                        initrd),
                         .arg = "FILE",
                         .group = "Boot without an image",
                         .help = "Initial RAM disk for the kernel"},
    {.name = "firmware",
                         OPT_INTO_STRING(struct run_values,                                                                                         firmware),
                         .arg = "FILE",
                         .group = "Boot without an image",
                         .help =
         "amd64: seabios or ovmf, as this host has them installed, or a file. riscv64: machine-mode firmware, "
         "such as OpenSBI's fw_dynamic or fw_jump, in place of the built-in SBI"                   },
    {.name = "payload",
                         OPT_INTO_STRING(struct run_values,                                                                           payload),
                         .arg = "FILE",
                         .group = "Boot without an image",
                         .help = "What the firmware starts in place of a kernel, such as U-Boot"},
    {.name = "flash",
                         OPT_INTO_STRING(struct run_values,                                                           flash),
                         .arg = "FILE",
                         .group = "Boot without an image",
                         .help =
         "riscv64: contents of the second flash bank; amd64: ovmf's variables, to keep them; made if it is not there"               },

    {.name = "vsock",
                         OPT_INTO_STRING(struct run_values,                                      vsock),
                         .arg = "DIR",
                         .group = "Devices",
                         .help =
         "Socket device: guest port N is the unix socket DIR/N, for the guest, whose address is 3, and for the "
         "host alike"                                 },

    {.name = "env",
                         .short_name = 'e',
                         OPT_INTO_LIST(struct run_values,                                                                                                                                                                env),
                         .arg = "NAME=VALUE",
                         .group = "Command",
                         .help = "Set an environment variable of the command. May be repeated"},
    {.name = "workdir",
                         .short_name = 'w',
                         OPT_INTO_STRING(struct run_values,                                                                                         workdir),
                         .arg = "/PATH",
                         .group = "Command",
                         .help = "Folder of the guest to run the command in. Default: root's home"},
    {.name = "json",
                         OPT_INTO_FLAG(struct run_values,                                                                                                                    json),
                         .group = "Command",
                         .help =
         "At the end, print one JSON line to stdout: name, image, engine, reason, status, wall_seconds, "
         "cpu_seconds, guest_instructions, guest_errors, stats"                                                                                                           },

    {.name = "gdb",
                         OPT_INTO_STRING(struct run_values,                                                                                                                gdb),
                         .arg = "[ADDR:]PORT",
                         .group = "Debugging",
                         .help = "Listen for gdb ('target remote :PORT'); a path makes a unix socket"                                                                                                                   },
    {.name = "gdb-wait",
                         OPT_INTO_FLAG(struct run_values,                                                                                                              gdb_wait),
                         .group = "Debugging",
                         .help = "With --gdb: start when gdb says continue"                                                                                     },
    {.name = "stats",
                         OPT_INTO_FLAG(struct run_values,                                                                                stats),
                         .group = "Debugging",
                         .help =
         "At the end, print to standard error what the engine did: translations, exits, TLB misses, time by tier; with --json they are its member stats"                                                                                                                                                       },
    {.name = "translation-cache",
                         OPT_INTO_SIZE(struct run_values, translation_cache),
                         .arg = "SIZE",
                         .min = 1LL << 20,
                         .max = 2LL << 30,
                         .group = "Debugging",
                         .help =
         "At most so much memory for translated code; when it is full, translation starts over. Default: an eighth of the host's memory, but 128M at least and 1G at most"},
    {.name = "perf-map",
                         OPT_INTO_FLAG(struct run_values,                                                                                                              perf_map),
                         .group = "Debugging",
                         .help = "Name translated code for perf, in /tmp/perf-PID.map"                },
    {.name = "gdb-jit",
                         OPT_INTO_FLAG(struct run_values,                                                                     gdb_jit),
                         .group = "Debugging",
                         .help = "Name translated code for a gdb that debugs posada itself"                                                                                                                                                       },
    {.name = "dump-elf",
                         OPT_INTO_STRING(struct run_values,                                                              dump_elf),
                         .arg = "FILE",
                         .group = "Debugging",
                         .help = "At the end, write all translated code to an ELF file, for 'objdump -d'"                                                                                                   },
    {.name = "trace",
                         OPT_INTO_LIST(struct run_values,                                                trace),
                         .arg = "PATTERN",
                         .group = "Debugging",
                         .help =
         "Print trace events whose names match this shell pattern, such as 'vq_*'. May be repeated"                                                                                                     },
    {.name = "trace-file",
                         OPT_INTO_STRING(struct run_values,                                                      trace_file),
                         .arg = "FILE",
                         .group = "Debugging",
                         .help = "Write trace events there. Default: standard error"              },
    {.name = "dump",
                         OPT_INTO_STRING(struct run_values,                                                                     dump),
                         .arg = "KINDS",
                         .group = "Debugging",
                         .help = "Print what the engine makes of guest code: any of guest,ir,opt,regs,host"                                                                                                                       },
    {.name = "dump-file",
                         OPT_INTO_STRING(struct run_values,                                              dump_file),
                         .arg = "FILE",
                         .group = "Debugging",
                         .help = "Write dumps there. Default: standard error"                                                                                                     },
    {.name = "dump-dtb",
                         OPT_INTO_STRING(struct run_values,                                                                            dump_dtb),
                         .arg = "FILE",
                         .group = "Debugging",
                         .help = "Write the machine's device tree blob there and exit"                       },
    CMD_COMMON_ROWS(struct run_values),
};

static const struct cmd_section run_sections[] = {
    {"Terminal",
     "While the guest runs, the terminal is its console, Ctrl-C included. Ctrl-] leads out of it: then q asks the "
     "guest's kernel to power off, k stops it at once, r resets it, p pauses and resumes it, i prints what runs, ] "
     "sends Ctrl-] itself, h lists these. (What q asks is Linux's SysRq: sync, remount read-only, power off.)\n\n"
     "Input that is not a terminal is typed into the console; after its end, Ctrl-D is, until the machine stops. "
     "Ctrl-C and SIGTERM then stop the machine: Ctrl-C at once, SIGTERM as q does, or at once after 3 seconds."},
    {"Disks and instances",
     "A guest of an image with a disk keeps its disk, as an instance: the same command continues with it. --name keeps "
     ""
     "several of one image, --rm keeps none. 'posada list' shows them, 'posada delete' deletes one."},
    {"Exit status",
     "The status of COMMAND, or that with which the guest powered off. Otherwise:\n\n"
     "  1     the machine was stopped at once, with k\n"
     "  2     the command line is wrong\n"
     "  124   the --timeout has passed\n"
     "  125   Posada failed, and says why: a missing file, a port in use, a guest that did not start\n"
     "  128+N signal N ended the run: 130 after Ctrl-C, 143 after SIGTERM"},
    {"Examples",
     "  posada run tiny                                  a shell in a small guest\n"
     "  posada run debian -p 8080:80 -v ~/src:/src       Debian, with a port and a folder\n"
     "  posada run debian --rm -- sh -c 'apt-get update && apt-get install -y gcc'\n"
     "  tar c . | posada run tiny -- tar t\n"
     "  posada run --kernel Image --initrd initrd.gz --append 'console=hvc0' --memory 2G --cpus 4\n"
     "  posada run --firmware fw_jump.elf --payload u-boot.bin --disk disk.raw"},
    {0                                                                                              },
};

const struct cmd cmd_run = {
    .path = "run",
    .operands = "[IMAGE] [-- COMMAND...]",
    .summary = "run a machine in this terminal",
    .description =
        "Run a riscv64 machine, attached to this terminal, until it powers off.\n\n"
        "IMAGE is tiny (a kernel and busybox, built in seconds) or debian, debian:sid... (built on first use). "
        "Without one, --kernel or --firmware says what to boot. With COMMAND, the guest runs just that: its output is "
        "ours, its input ours, and its status too.",
    .opts = run_opts,
    .values_size = sizeof(struct run_values),
    .sections = run_sections,
    .max_operands = 1,
    .takes_rest = true,
    .run = run_run,
};
