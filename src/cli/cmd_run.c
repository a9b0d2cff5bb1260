/* posada run: the table of its options, and its steps. See cli/run.h. */
#include "base/fd.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/run.h"
#include "cli/verbs.h"
#include "image/image.h"

#include <errno.h>
#include <stdlib.h>

#define MIB (1LL << 20)

void run_done(struct run *run)
{
    command_free(run->command);
    image_free(run->image);
    instance_done(&run->instance);
    trace_set_fd(STDERR_FILENO);
    fd_close(run->trace_fd);
    fd_close(run->dump_fd);
    for (size_t i = 0; i < run->owned_count; i++)
        free(run->owned[i]);
    *run = (struct run){0};
}

static int run_run(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct run *run = calloc(1, sizeof(*run));
    struct error err = {0};
    int status;

    if (!run) {
        (void)error_set(&err, ENOMEM, "out of memory");
        return cmd_fail(cmd, CLI_ERROR, &err);
    }
    run->cmd = cmd;
    run->v = values;
    run->args = args;
    run->instance.lock_fd = run->dump_fd = run->trace_fd = -1;
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
    {.name = "cpus",
     .short_name = 'c',
     OPT_INTO_INT(struct run_values,                                                                                                         cpus),
     .arg = "N",
     .def = "1",
     .min = 1,
     .max = VM_MAX_CPUS,
     .group = "Machine",
     .help = "Processors of the guest, each a thread of this host"},
    {.name = "memory",
     .short_name = 'm',
     OPT_INTO_SIZE(struct run_values,                                                                          memory),
     .arg = "SIZE",
     .def = "1G",
     .min = 16 * MIB,
     .max = 1LL << 40,
     .group = "Machine",
     .help = "Guest memory, in bytes or with K, M, G; the host gives it as the guest touches it"},
    {.name = "engine",
     OPT_INTO_CHOICE(struct run_values,                                                                                               engine),
     .arg = "ENGINE",
     .choices = "jit interp check",
     .def = "jit",
     .group = "Machine",
     .help =
         "What executes guest instructions: translated code, the interpreter, or both, compared block by block"},
    {.name = "cpu",
     OPT_INTO_CHOICE(struct run_values,                                                                                          cpu),
     .arg = "PROFILE",
     .choices = "max rva23 rva22",
     .def = "max",
     .group = "Machine",
     .help = "Instruction set extensions of the processors: all there are, or those of a profile"},
    {.name = "vlen",
     OPT_INTO_CHOICE(struct run_values,  vlen),
     .arg = "BITS",
     .choices = "128 256 512",
     .def = "256",
     .group = "Machine",
     .help = "Width of the processors' vector registers"},
    {.name = "name",
     .short_name = 'n',
     OPT_INTO_STRING(struct run_values,                                                                                                                     name),
     .arg = "NAME",
     .group = "Machine",
     .help =
         "Name of the instance, which keeps its disk under that name; also the guest's host name for DHCP. "
         "Default: the image's name"},
    {.name = "rm",
     OPT_INTO_FLAG(struct run_values,                                                                                               rm),
     .group = "Machine",
     .help =
         "Keep nothing: the guest starts from the image, and what it writes to its disk is gone with it"                                                                                        },
    {.name = "disk-size",
     OPT_INTO_SIZE(struct run_values,                                                                                           disk_size),
     .arg = "SIZE",
     .min = 64 * MIB,
     .max = 1LL << 44,
     .group = "Machine",
     .help = "Grow the instance's disk to this size; the guest grows its file system at boot"},
    {.name = "timeout",
     .short_name = 't',
     OPT_INTO_DURATION(struct run_values,                                                                                                        timeout_ms),
     .arg = "TIME",
     .group = "Machine",
     .help =
         "Stop the machine after this time (500ms, 30s, 5m, 1h; seconds without a suffix), with exit status 124"},

    {.name = "kernel",
     .short_name = 'k',
     OPT_INTO_STRING(struct run_values,  kernel),
     .arg = "FILE",
     .group = "Boot without an image",
     .help = "Kernel: a Linux Image (also compressed) or an ELF program"},
    {.name = "initrd",
     .short_name = 'i',
     OPT_INTO_STRING(struct run_values,                           initrd),
     .arg = "FILE",
     .group = "Boot without an image",
     .help = "Initial RAM disk for the kernel"},
    {.name = "append",
     .short_name = 'a',
     OPT_INTO_STRING(struct run_values,                          append),
     .arg = "TEXT",
     .group = "Boot without an image",
     .help =
         "Kernel arguments; console= is added when it is missing. With an image: added to its own"},
    {.name = "firmware",
     OPT_INTO_STRING(struct run_values,                                                                            firmware),
     .arg = "FILE",
     .group = "Boot without an image",
     .help =
         "Machine-mode firmware, such as OpenSBI's fw_dynamic or fw_jump, in place of the built-in SBI"                                                                                                                      },
    {.name = "payload",
     OPT_INTO_STRING(struct run_values,                                                                                               payload),
     .arg = "FILE",
     .group = "Boot without an image",
     .help = "What the firmware starts in place of a kernel, such as U-Boot"                                                                                                                                      },
    {.name = "flash",
     OPT_INTO_STRING(struct run_values,                                                                  flash),
     .arg = "FILE",
     .group = "Boot without an image",
     .help = "Contents of the second flash bank"                                                                                           },

    {.name = "disk",
     .short_name = 'd',
     OPT_INTO_LIST(struct run_values,                                                                                                                          disks),
     .arg = "FILE[,KEY=VALUE...]",
     .group = "Devices",
     .help =
         "Add a disk, in any format of 'posada disk' (format=NAME; else by its beginning): readonly=on; "
         "snapshot=on: what the guest writes is dropped; cache=none: past the host's page cache; "
         "refs=folder|any|none: which other files the image may name; bps=SIZE and iops=N: at most so many "
         "bytes and requests a second, of reads alone with bps-rd, of writes with bps-wr, and with "
         "bps-burst so many at once after a rest; iops likewise. May be repeated"},
    {.name = "volume",
     .short_name = 'v',
     OPT_INTO_LIST(struct run_values,                                                                                                                          volumes),
     .arg = "DIR:/PATH[:ro]",
     .group = "Devices",
     .help =
         "Share folder DIR of the host with the guest. An image's guest finds it at /PATH; others mount the "
         "virtiofs tags share0, share1... May be repeated"},
    {.name = "net",
     OPT_INTO_CHOICE(struct run_values,  net),
     .arg = "NET",
     .choices = "user none",
     .def = "user",
     .group = "Devices",
     .help = "Network: behind this host by address translation, or none"},
    {.name = "publish",
     .short_name = 'p',
     OPT_INTO_LIST(struct run_values,ports),
     .arg = "[ADDR:]PORT:PORT[/udp]",
     .group = "Devices",
     .help =
         "Forward a port of this host (of address ADDR, 127.0.0.1 if none is given) to one of the guest. May be "
         "repeated"},
    {.name = "mac",
     OPT_INTO_STRING(struct run_values,                                                                                           mac),
     .arg = "MAC",
     .group = "Devices",
     .help = "Address of the network card. Default: made from the name"                                                                           },
    {.name = "console",
     OPT_INTO_CHOICE(struct run_values,                                                                                             console),
     .arg = "DEVICE",
     .choices = "virtio uart",
     .group = "Devices",
     .help =
         "Which device this terminal is in the guest: hvc0 or ttyS0. Default: virtio, but uart with firmware"},
    {.name = "rng",
     OPT_INTO_FLAG(struct run_values,                                         rng),
     .def = "on",
     .group = "Devices",
     .help = "Random number device"                                                                                                                                 },
    {.name = "balloon",
     OPT_INTO_FLAG(struct run_values,                                                                                          balloon),
     .def = "on",
     .group = "Devices",
     .help = "Balloon device, by which the guest gives free memory back to the host"                                                                                                                        },
    {.name = "vsock",
     OPT_INTO_STRING(struct run_values,                                                                                          vsock),
     .arg = "DIR",
     .group = "Devices",
     .help =
         "Socket device: guest port N is the unix socket DIR/N, for the guest, whose address is 3, and for the "
         "host alike"                                                                                                                      },

    {.name = "env",
     .short_name = 'e',
     OPT_INTO_LIST(struct run_values,                                                                                                                     env),
     .arg = "NAME=VALUE",
     .group = "Command",
     .help = "Set an environment variable of the command. May be repeated"},
    {.name = "workdir",
     .short_name = 'w',
     OPT_INTO_STRING(struct run_values,                                                                                                                     workdir),
     .arg = "/PATH",
     .group = "Command",
     .help = "Folder of the guest to run the command in. Default: root's home"},
    {.name = "json",
     OPT_INTO_FLAG(struct run_values,                                                                                                 json),
     .group = "Command",
     .help =
         "At the end, print one JSON line to stdout: name, image, engine, reason, status, wall_seconds, "
         "cpu_seconds, guest_instructions, guest_errors"                         },

    {.name = "arch",
     OPT_INTO_STRING(struct run_values,                                                                                                arch),
     .arg = "ARCH",
     .group = "Image",
     .help = "Architecture of the image, by Debian's name. Default: riscv64"},
    {.name = "mirror",
     OPT_INTO_STRING(struct run_values,                                                                       mirror),
     .arg = "URL",
     .group = "Image",
     .help =
         "Package mirror for an image that must be built. Default: the one that this host's apt uses"},

    {.name = "gdb",
     OPT_INTO_STRING(struct run_values,                                                                           gdb),
     .arg = "[ADDR:]PORT",
     .group = "Debugging",
     .help = "Listen for gdb ('target remote :PORT'); a path makes a unix socket" },
    {.name = "gdb-wait",
     OPT_INTO_FLAG(struct run_values,                                                                             gdb_wait),
     .group = "Debugging",
     .help = "With --gdb: start when gdb says continue"                                                       },
    {.name = "trace",
     OPT_INTO_LIST(struct run_values,trace),
     .arg = "PATTERN",
     .group = "Debugging",
     .help =
         "Print trace events whose names match this shell pattern, such as 'vq_*'. May be repeated"                                                                                },
    {.name = "trace-file",
     OPT_INTO_STRING(struct run_values,trace_file),
     .arg = "FILE",
     .group = "Debugging",
     .help = "Write trace events there. Default: standard error"                                                                              },
    {.name = "dump",
     OPT_INTO_STRING(struct run_values,dump),
     .arg = "KINDS",
     .group = "Debugging",
     .help = "Print what the engine makes of guest code: any of guest,ir,opt,regs,host"                                                                         },
    {.name = "dump-file",
     OPT_INTO_STRING(struct run_values,dump_file),
     .arg = "FILE",
     .group = "Debugging",
     .help = "Write dumps there. Default: standard error"                                                                                                          },
    {.name = "dump-dtb",
     OPT_INTO_STRING(struct run_values,                                                                                            dump_dtb),
     .arg = "FILE",
     .group = "Debugging",
     .help = "Write the machine's device tree blob there and exit"                                                                                                                       },
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
     "several of one image, --rm keeps none. 'posada list' shows them, 'posada remove' deletes one."},
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
