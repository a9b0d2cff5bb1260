/* What the commands that make guests have in common: options that become a configuration, and the
 * making of an instance from an image. */
#ifndef CLI_GUEST_H
#define CLI_GUEST_H

#include "base/opt.h"
#include "image/image.h"
#include "store/store.h"

/** The value of the options below: what was not given is 0 or NULL. */
struct guest_values {
    int64_t cpus;
    uint64_t memory, disk_size;
    const char *engine, *cpu, *vlen, *append, *net, *mac, *console;
    struct opt_list disks, cdroms, volumes, ports, oem;
    const char *boot;
    bool rng, balloon;
    const char *arch, *mirror;
    const char *restart, *description, *cloud_init;
    bool autostart;
};

/** The architecture of a guest of image @image that the options choose: what --arch or --engine
 * say; else, if the image's name says none, amd64 where KVM works. NULL = the image's own default.
 * *@ret_why is why KVM was not chosen, or was, as a sentence; "" when the user chose. */
const char *guest_arch(const struct guest_values *v, const char *image, struct error *ret_why);

extern const char guest_disk_help[], guest_volume_help[];

/** Their rows, for a struct @s with a member `guest`. */
#define GUEST_OPT_ROWS(s)                                                                          \
    {.name = "cpus",                                                                               \
     .short_name = 'c',                                                                            \
     OPT_INTO_INT(s, guest.cpus),                                                                  \
     .arg = "N",                                                                                   \
     .min = 1,                                                                                     \
     .max = VM_MAX_CPUS,                                                                           \
     .group = "Machine",                                                                           \
     .help = "Processors of the guest, each a thread of this host. Default: 1"},                   \
        {.name = "memory",                                                                         \
         .short_name = 'm',                                                                        \
         OPT_INTO_SIZE(s, guest.memory),                                                           \
         .arg = "SIZE",                                                                            \
         .min = 16LL << 20,                                                                        \
         .max = 1LL << 40,                                                                         \
         .group = "Machine",                                                                       \
         .help = "Guest memory, in bytes or with K, M, G; the host gives it as the guest touches " \
                 "it. Default: 1G"},                                                               \
        {.name = "engine",                                                                         \
         OPT_INTO_CHOICE(s, guest.engine),                                                         \
         .arg = "ENGINE",                                                                          \
         .choices = "jit interp check kvm",                                                        \
         .group = "Machine",                                                                       \
         .help =                                                                                   \
             "What executes guest instructions: translated code, the interpreter, or both, "       \
             "compared block by block, for riscv64; the host's processor, for amd64. Default: "    \
             "kvm for amd64, else jit"},                                                           \
        {.name = "cpu",                                                                            \
         OPT_INTO_CHOICE(s, guest.cpu),                                                            \
         .arg = "PROFILE",                                                                         \
         .choices = "max rva23 rva22 x86-64-v2 x86-64-v3 x86-64-v4",                               \
         .group = "Machine",                                                                       \
         .help = "Instruction set extensions of the processors: all there are, or those of a "     \
                 "profile (riscv64) or level (amd64). Default: max"},                              \
        {.name = "vlen",                                                                           \
         OPT_INTO_CHOICE(s, guest.vlen),                                                           \
         .arg = "BITS",                                                                            \
         .choices = "128 256 512",                                                                 \
         .group = "Machine",                                                                       \
         .help = "Width of the processors' vector registers. Default: 256"},                       \
        {.name = "disk-size",                                                                      \
         OPT_INTO_SIZE(s, guest.disk_size),                                                        \
         .arg = "SIZE",                                                                            \
         .min = 64LL << 20,                                                                        \
         .max = 1LL << 44,                                                                         \
         .group = "Machine",                                                                       \
         .help =                                                                                   \
             "Grow the instance's disk to this size; the guest grows its file system at boot. An " \
             "image without a disk gets an empty one"},                                            \
        {.name = "append",                                                                         \
         .short_name = 'a',                                                                        \
         OPT_INTO_STRING(s, guest.append),                                                         \
         .arg = "TEXT",                                                                            \
         .group = "Machine",                                                                       \
         .help =                                                                                   \
             "Kernel arguments; console= is added when it is missing. With an image: added to "    \
             "its own"},                                                                           \
        {.name = "disk",                                                                           \
         .short_name = 'D',                                                                        \
         OPT_INTO_LIST(s, guest.disks),                                                            \
         .arg = "FILE[,KEY=VALUE...]",                                                             \
         .group = "Devices",                                                                       \
         .help = guest_disk_help},                                                                 \
        {.name = "cdrom",                                                                          \
         OPT_INTO_LIST(s, guest.cdroms),                                                           \
         .arg = "FILE",                                                                            \
         .group = "Devices",                                                                       \
         .help = "Add a CD-ROM drive with this image, such as an installer's. May be repeated"},   \
        {.name = "boot",                                                                           \
         OPT_INTO_CHOICE(s, guest.boot),                                                           \
         .arg = "DEVICE",                                                                          \
         .choices = "disk cdrom",                                                                  \
         .group = "Devices",                                                                       \
         .help = "What amd64 firmware looks at first. Default: disk"},                             \
        {.name = "volume",                                                                         \
         .short_name = 'v',                                                                        \
         OPT_INTO_LIST(s, guest.volumes),                                                          \
         .arg = "DIR:/PATH[:ro]",                                                                  \
         .group = "Devices",                                                                       \
         .help = guest_volume_help},                                                               \
        {.name = "net",                                                                            \
         OPT_INTO_CHOICE(s, guest.net),                                                            \
         .arg = "NET",                                                                             \
         .choices = "user none",                                                                   \
         .group = "Devices",                                                                       \
         .help = "Network: behind this host by address translation, or none. Default: user"},      \
        {.name = "publish",                                                                        \
         .short_name = 'p',                                                                        \
         OPT_INTO_LIST(s, guest.ports),                                                            \
         .arg = "[ADDR:]PORT:PORT[/udp]",                                                          \
         .group = "Devices",                                                                       \
         .help = "Forward a port of this host (of address ADDR, 127.0.0.1 if none is given) to "   \
                 "one of the guest. May be repeated"},                                             \
        {.name = "mac",                                                                            \
         OPT_INTO_STRING(s, guest.mac),                                                            \
         .arg = "MAC",                                                                             \
         .group = "Devices",                                                                       \
         .help = "Address of the network card. Default: random, and kept with the instance"},      \
        {.name = "console",                                                                        \
         OPT_INTO_CHOICE(s, guest.console),                                                        \
         .arg = "DEVICE",                                                                          \
         .choices = "virtio uart",                                                                 \
         .group = "Devices",                                                                       \
         .help = "Which device the console is in the guest: hvc0 or ttyS0. Default: virtio, but "  \
                 "uart with firmware"},                                                            \
        {.name = "rng",                                                                            \
         OPT_INTO_FLAG(s, guest.rng),                                                              \
         .def = "on",                                                                              \
         .group = "Devices",                                                                       \
         .help = "Random number device"},                                                          \
        {.name = "balloon",                                                                        \
         OPT_INTO_FLAG(s, guest.balloon),                                                          \
         .def = "on",                                                                              \
         .group = "Devices",                                                                       \
         .help = "Balloon device, by which the guest gives free memory back to the host"},         \
        {.name = "oem-string",                                                                     \
         OPT_INTO_LIST(s, guest.oem),                                                              \
         .arg = "TEXT",                                                                            \
         .group = "Devices",                                                                       \
         .help = "A text for the guest to find in SMBIOS, such as a credential for systemd "       \
                 "(amd64). May be repeated"},                                                      \
        {.name = "arch",                                                                           \
         OPT_INTO_STRING(s, guest.arch),                                                           \
         .arg = "ARCH",                                                                            \
         .group = "Image",                                                                         \
         .help = "Architecture of the guest, by Debian's name. Default: amd64 where KVM works, "   \
                 "else riscv64; without an image, riscv64"},                                       \
    {                                                                                              \
        .name = "mirror", OPT_INTO_STRING(s, guest.mirror), .arg = "URL", .group = "Image",        \
        .help = "Package mirror for an image that must be built. Default: the one that this "      \
                "host's apt uses"                                                                  \
    }

/** Rows for what only instances that last have. */
#define GUEST_KEPT_ROWS(s)                                                                        \
    {.name = "cloud-init",                                                                        \
     OPT_INTO_STRING(s, guest.cloud_init),                                                        \
     .arg = "FILE",                                                                               \
     .group = "Instance",                                                                         \
     .help = "User data for cloud-init in the guest, on a NoCloud disk labelled cidata"},         \
        {.name = "restart",                                                                       \
         OPT_INTO_STRING(s, guest.restart),                                                       \
         .arg = "POLICY",                                                                         \
         .group = "Instance",                                                                     \
         .help = "When the guest ends: no, on-failure[:N], always, unless-stopped. Default: no"}, \
        {.name = "autostart",                                                                     \
         OPT_INTO_FLAG(s, guest.autostart),                                                       \
         .group = "Instance",                                                                     \
         .help = "'posada autostart' starts it"},                                                 \
    {                                                                                             \
        .name = "description", OPT_INTO_STRING(s, guest.description), .arg = "TEXT",              \
        .group = "Instance", .help = "A line about it"                                            \
    }

/** Put what was given into @c. -EINVAL: "--OPTION: expected ...". With @absolute, relative names of
 * files become absolute, for an instance that outlives this folder. */
must_check int guest_apply(const struct guest_values *v, struct instance_config *c, bool absolute,
                           struct error *err);

/** Find the image, or build it with a progress bar on stderr. */
must_check int guest_find_image(const struct image_spec *spec, struct image **ret,
                                struct error *err);

/** The name of an instance that was given none: the image's, as a file and host name. */
void guest_default_name(const struct image_spec *spec, char ret[IMAGE_NAME_MAX]);

/** Tell on stderr what guest_arch() has chosen for an image of @arch, and why: a line, or none if
 * the user chose. */
void guest_say_choice(const char *arch, const struct error *why);

/** Create the locked, absent @in from @spec's image, with what was given. It keeps @why, of
 * guest_arch(), which is told on stderr. */
must_check int guest_create(struct instance *in, const struct image_spec *spec,
                            const struct guest_values *v, const struct error *why,
                            struct error *err);

/** posada launch: make an instance of @image called @name (NULL: any), print its name, and with
 * @start start it. In cmd_launch.c. */
must_check int launch(const struct guest_values *v, const char *image, const char *name, bool start,
                      struct error *err);

#endif
