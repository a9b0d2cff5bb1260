/* The image "debian": a minimal Debian system, bootable disk.
 *
 *  host: resolve and download packages; turn them into one tar stream (payload) with a dpkg
 * database; make an initramfs (builder), a disk with a partition table, and an empty result disk
 *  build machine: make the file systems, unpack, `dpkg --configure -a` (guest/image/builder/init,
 * setup) host: take the initrd and the verdict from the result disk, a tar stream too
 *
 * Runs on the caller's thread. */
#include "base/fd.h"
#include "base/paths.h"
#include "image/builder.h"
#include "image/embedded.h"
#include "image/gpt.h"
#include "image/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ESP_BYTES      (256ULL << 20)
#define DISK_BYTES_MIN (2ULL << 30)
#define RESULT_BYTES   4096
#define MEMORY_BYTES   (2ULL << 30)
#define CONSOLE_MAX    (64u << 20)
#define INITRD_MAX     (256u << 20)
#define ROOT_LABEL     "posada-root"

/* Beside everything of priority "required". */
static const char *const packages[] = {
    "systemd-sysv",
    "systemd",
    "systemd-resolved",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "iputils-ping",
    "netbase",
    "ca-certificates",
    "fdisk",
    "e2fsprogs",
    "procps",
    "zstd",
    "initramfs-tools",
    "systemd-boot-efi",
    "debian-archive-keyring",
    NULL,
};

/** What the steps hand on. */
struct debian {
    struct build *b;
    struct package_set set;
    struct package *busybox;
    char *payload, *build_initrd, *result, *console; /* paths of what only the build needs */
    char *kernel, *initrd, *disk;                    /* and of what stays */
};

static void debian_done(struct debian *d)
{
    package_set_done(&d->set);
    free(d->payload);
    free(d->build_initrd);
    free(d->result);
    free(d->console);
    free(d->kernel);
    free(d->initrd);
    free(d->disk);
}

static int make_paths(struct debian *d, struct error *err)
{
    const char *dir = d->b->dir;

    d->payload = paths_format(err, "%s/payload.tar", dir);
    d->build_initrd = paths_format(err, "%s/build-initrd", dir);
    d->initrd = paths_format(err, "%s/initrd", dir);
    d->kernel = paths_format(err, "%s/kernel", dir);
    d->disk = paths_format(err, "%s/disk.raw", dir);
    d->result = paths_format(err, "%s/result", dir);
    d->console = paths_format(err, "%s/console.log", dir);
    return d->payload && d->build_initrd && d->initrd && d->kernel && d->disk && d->result &&
                   d->console
               ? 0
               : -ENOMEM;
}

/** Choose the packages; base-files comes first, because the payload takes folders from the first.
 */
static int choose_packages(struct debian *d, struct error *err)
{
    struct build *b = d->b;
    char kernel[IMAGE_WORD_MAX + 16];
    const char *first[] = {"base-files", NULL}, *last[] = {kernel, NULL};

    (void)snprintf(kernel, sizeof(kernel), "linux-image-%s", b->spec.arch);
    int r = package_set_resolve(&d->set, b->suite.index, first, false, err);
    if (!r)
        r = package_set_resolve(&d->set, b->suite.index, packages, true, err);
    if (!r)
        r = package_set_resolve(&d->set, b->suite.index, last, false, err);
    d->busybox = r ? NULL : index_find(b->suite.index, slice_of("busybox-static"));
    if (!r && !d->busybox)
        r = error_set(err, ENOENT, "the mirror's index does not have package 'busybox-static'");
    return r;
}

static int fetch_packages(struct debian *d, struct error *err)
{
    size_t n = d->set.count + 1;
    cleanup(freep) struct package **list = calloc(n, sizeof(struct package *));

    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(list, d->set.list, d->set.count * sizeof(struct package *));
    list[n - 1] = d->busybox;
    return build_fetch(d->b, list, n, err);
}

/** Files of the image that only this build knows: apt's sources, and what the setup is told. */
static int add_generated(struct debian *d, struct payload *p, struct error *err)
{
    const struct build *b = d->b;
    cleanup(freep) char *sources = paths_format(
        err,
        "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n%sSigned-By: "
        "/usr/share/keyrings/debian-archive-keyring.gpg\n",
        b->suite.mirror, b->spec.suite, b->suite.expired ? "Check-Valid-Until: no\n" : "");
    const char *preinsts = payload_preinsts(p);

    if (!sources)
        return -ENOMEM;
    int r = payload_add_file(p, "etc/apt/sources.list.d/debian.sources", 0644, sources,
                             strlen(sources), err);
    if (!r)
        r = payload_add_file(p, "var/cache/posada/arch", 0644, b->spec.arch, strlen(b->spec.arch),
                             err);
    if (!r)
        r = payload_add_file(p, "var/cache/posada/preinsts", 0644, preinsts, strlen(preinsts), err);
    return r;
}

/** Put the embedded files below @folder, with their parent folders, into the payload. */
static int add_embedded(struct payload *p, const char *folder, struct error *err)
{
    size_t n = strlen(folder);
    int r = 0;

    for (size_t i = 0; i < embedded_file_count && !r; i++) {
        const struct embedded_file *f = &embedded_files[i];
        const char *name = f->path + n;

        if (strncmp(f->path, folder, n))
            continue;
        for (const char *s = name; !r && (s = strchr(s, '/')); s++) {
            cleanup(freep) char *dir = strndup(name, (size_t)(s - name));

            r = dir ? payload_add_dir(p, dir, 0755, err) : error_set(err, ENOMEM, "out of memory");
        }
        if (!r)
            r = payload_add_file(p, name, f->mode, f->data, f->size, err);
    }
    return r;
}

static int add_packages(struct debian *d, struct payload *p, struct builder *builder,
                        struct error *err)
{
    struct build *b = d->b;
    uint64_t done = 0;

    for (size_t i = 0; i < d->set.count; i++) {
        const struct package *package = d->set.list[i];
        cleanup(freep) char *deb = build_deb_path(b, package, err);

        if (!deb)
            return -ENOMEM;
        int r = payload_add_deb(p, deb, builder_tap(builder), err);
        if (r) {
            error_prefix(err, "%.*s", (int)package->name.n, package->name.p);
            return r;
        }
        done += package->size;
        if (build_report(done, d->set.size_bytes, b))
            return error_set(err, ECANCELED, "cancelled");
    }
    return 0;
}

/** The kernel and the first initrd: beside the disk for direct boot, and on it for boot by EFI. */
static int add_boot_files(struct debian *d, struct payload *p, struct builder *builder,
                          const char *busybox, struct error *err)
{
    const struct kernel *k = builder_kernel(builder);
    cleanup(freep) char *initrd = NULL;
    size_t size = 0;
    int r = builder_write_initrd(builder, d->initrd, busybox, err);

    if (!r)
        r = paths_write(d->kernel, k->image, k->image_size, err);
    if (!r)
        r = paths_read(d->initrd, INITRD_MAX, &initrd, &size, err);
    if (r)
        return r;
    d->b->release = strdup(k->release);
    cleanup(freep) char *name = paths_format(err, "boot/initrd.img-%s", k->release);
    if (!d->b->release || !name)
        return error_set(err, ENOMEM, "out of memory");
    return payload_add_file(p, name, 0644, initrd, size, err);
}

static int assemble(struct debian *d, struct payload *p, struct builder *builder, struct error *err)
{
    cleanup(freep) char *busybox = build_deb_path(d->b, d->busybox, err);
    cleanup(freep) char *programs = paths_format(err, "arch/%s/", d->b->spec.arch);
    int r = busybox && programs ? add_packages(d, p, builder, err) : -ENOMEM;

    if (!r)
        r = add_embedded(p, "common/", err);
    if (!r)
        r = add_embedded(p, "debian/", err);
    if (!r)
        r = add_embedded(p, programs, err);
    if (!r)
        r = add_generated(d, p, err);
    if (!r)
        r = add_boot_files(d, p, builder, busybox, err);
    if (!r)
        r = payload_finish(p, err);
    return r ? r : builder_finish(builder, busybox, err);
}

static int unpack_packages(struct debian *d, struct error *err)
{
    int r = build_stage(d->b, "Unpacking packages", d->set.size_bytes, true, err);

    if (r)
        return r;
    struct payload *p = payload_new(d->payload, err);
    struct builder *builder = p ? builder_new(d->build_initrd, err) : NULL;
    r = builder ? assemble(d, p, builder, err) : -EIO;
    builder_free(builder);
    payload_free(p);
    return r;
}

static int make_file(const char *path, uint64_t size, int *ret_fd, struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || ftruncate(fd, (off_t)size))
        return error_set(err, errno, "cannot create '%s': %s", path, strerror(errno));
    *ret_fd = fd_take(&fd);
    return 0;
}

static int make_disks(struct debian *d, struct error *err)
{
    static const struct gpt_partition parts[] = {
        {GPT_ESP,        "ESP",  ESP_BYTES},
        {GPT_LINUX_ROOT, "root", 0        },
    };
    uint64_t size = d->b->spec.disk_bytes;
    cleanup(fd_closep) int disk = -1;
    cleanup(fd_closep) int result = -1;
    struct stat st;

    if (size < DISK_BYTES_MIN || size % GPT_SECTOR)
        return error_set(err, EINVAL,
                         "the disk must have at least %llu MiB, a multiple of 512 bytes",
                         DISK_BYTES_MIN >> 20);
    int r = make_file(d->disk, size, &disk, err);
    if (!r)
        r = gpt_write(disk, size, d->b->spec.arch, parts, ARRAY_SIZE(parts), err);
    if (!r)
        r = make_file(d->result, RESULT_BYTES, &result, err);
    /* A virtio disk has whole sectors; tar ends in zeros anyway. */
    if (!r && (stat(d->payload, &st) ||
               truncate(d->payload, (st.st_size + GPT_SECTOR - 1) / GPT_SECTOR * GPT_SECTOR)))
        r = error_set(err, errno, "cannot pad '%s': %s", d->payload, strerror(errno));
    return r;
}

/** How far the guest is, from what it has printed: each package is set up once. */
static int watch(void *arg)
{
    struct debian *d = arg;
    cleanup(freep) char *text = NULL;
    size_t size = 0, done = 0;

    if (paths_read(d->console, CONSOLE_MAX, &text, &size, NULL))
        return build_report(0, d->set.count, d->b);
    for (const char *p = text; (p = strstr(p, " Setting up ")); p++)
        done++;
    return build_report(MIN(done, d->set.count), d->set.count, d->b);
}

static int run_machine(struct debian *d, struct error *err)
{
    const struct image_build_opts *opts = &d->b->opts;
    long host_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct image_machine m = {
        .arch = d->b->spec.arch,
        .kernel = d->kernel,
        .initrd = d->build_initrd,
        .append = "quiet",
        .disks = {{d->disk, false}, {d->payload, true}, {d->result, false}},
        .disk_count = 3,
        .cpus = opts->cpus ? opts->cpus : (unsigned)MAX(1L, MIN(host_cpus, 4L)),
        .memory_bytes = MEMORY_BYTES,
        .console_path = d->console,
        .tick = watch,
        .arg = d,
    };
    int r = build_stage(d->b, "Setting up packages", d->set.count, false, err);

    if (!r)
        r = opts->run_machine ? opts->run_machine(&m, err) : image_machine_run(&m, err);
    return r;
}

/** The sentence for a setup that failed: the guest's verdict and its last words. */
static int explain(struct debian *d, const char *verdict, struct error *err)
{
    cleanup(freep) char *text = NULL;
    size_t size = 0;
    const char *last = "";

    if (!paths_read(d->console, CONSOLE_MAX, &text, &size, NULL)) {
        last = size > 300 ? text + size - 300 : text;
        for (char *p = text; *p; p++)
            *p = *p == '\n' || *p == '\r' ? ' ' : *p;
    }
    if (!*verdict)
        verdict = "the build machine stopped without a result";
    return error_set(err, EIO, "setting up the system failed (%.*s); its last words: %s",
                     (int)strcspn(verdict, "\n"), verdict, last);
}

/** The guest has written "ok" and a newline on the result disk, or what has failed; or nothing. */
static int check_result(struct debian *d, struct error *err)
{
    cleanup(freep) char *verdict = NULL;
    size_t size = 0;
    int r = paths_read(d->result, RESULT_BYTES, &verdict, &size, err);

    if (r)
        return r;
    return strncmp(verdict, "ok\n", 3) ? explain(d, verdict, err) : 0;
}

/** Keep the console where the caller wants it, and delete what only the build needed. */
static int tidy(struct debian *d, struct error *err)
{
    const char *const scratch[] = {d->payload, d->build_initrd, d->result, d->console};

    for (size_t i = 0; i < ARRAY_SIZE(scratch); i++)
        if (unlink(scratch[i]))
            return error_set(err, errno, "cannot delete '%s': %s", scratch[i], strerror(errno));
    d->b->append = strdup("root=LABEL=" ROOT_LABEL " rw");
    d->b->has_initrd = d->b->has_disk = true;
    return d->b->append ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void keep_log(const struct debian *d)
{
    cleanup(freep) char *text = NULL;
    size_t size = 0;

    if (d->b->opts.log_path && !paths_read(d->console, CONSOLE_MAX, &text, &size, NULL))
        (void)!paths_write(d->b->opts.log_path, text, size, NULL); /* a log is no reason to fail */
}

int debian_build(struct build *b, struct error *err)
{
    struct debian d = {.b = b};
    int r = b->opts.run_machine ? 0 : image_machine_check(b->spec.arch, err);

    if (!r)
        r = make_paths(&d, err);
    if (!r)
        r = choose_packages(&d, err);
    if (!r)
        r = fetch_packages(&d, err);
    if (!r)
        r = unpack_packages(&d, err);
    if (!r)
        r = make_disks(&d, err);
    if (!r) {
        r = run_machine(&d, err);
        keep_log(&d);
    }
    if (!r)
        r = check_result(&d, err);
    if (!r)
        r = tidy(&d, err);
    debian_done(&d);
    return r;
}
