/* Parts of image_build() that both kinds of image use. */
#ifndef IMAGE_BUILD_INTERNAL_H
#define IMAGE_BUILD_INTERNAL_H

#include "image/image.h"
#include "image/machine.h"
#include "image/suite.h"

struct cpio;
struct modules;
struct package;

/** One build in progress; owned by image_build(). */
struct build {
    struct image_spec spec;
    struct image_build_opts opts;
    struct suite suite;
    char *dir;     /* temporary folder that becomes the image */
    char *pool;    /* folder of downloaded packages */
    char *append;  /* kernel arguments, "" at start */
    char *release; /* kernel release */
    bool has_initrd, has_disk;
    struct image_progress progress;
    int64_t reported_ns;
};

/** Begin the next stage. 0 or -ECANCELED. */
must_check int build_stage(struct build *b, const char *stage, uint64_t total, bool is_bytes,
                           struct error *err);

/** Report progress within the stage; also a fetch_progress_fn. Returns 0, or nonzero to cancel. */
int build_report(uint64_t done, uint64_t total, void *build);

/** Download @n packages as the next stage. @suite's index tells what is expected. */
must_check int build_fetch(struct build *b, struct package *const *list, size_t n,
                           struct error *err);

/** The file a downloaded package is in; the caller frees it. NULL with @err set. */
char *build_deb_path(const struct build *b, const struct package *p, struct error *err);

#define BUILD_KERNEL_MAX 4

/** The packages that hold the kernel and its modules: what linux-image-ARCH depends on, and, where
 * they are packages of their own, that one's linux-binary-* and linux-modules-*. At most
 * BUILD_KERNEL_MAX. */
must_check int build_find_kernel(struct build *b, struct package *ret[BUILD_KERNEL_MAX],
                                 size_t *ret_n, struct error *err);

/** Put the embedded files below @folder ("common/") into an initramfs. 0 or -errno; -ENOENT if
 * there are none. */
must_check int build_add_embedded(struct cpio *c, const char *folder);

/** Put the programs of ours for guests of @arch into an initramfs. 0 or -errno. */
must_check int build_add_programs(struct cpio *c, const char *arch);

/** A kernel package's contents. */
struct kernel {
    char *release;
    char *image; /* the boot file as packed: Image, bzImage, EFI zboot */
    size_t image_size;
    struct modules *modules;
};

/** An empty kernel; for who walks packages already: is a file wanted; take it (@data becomes the
 * kernel's). kernel_done() frees it, also after a failure. */
must_check int kernel_init(struct kernel *k, struct error *err);
bool kernel_wants(const char *name);
must_check int kernel_take(struct kernel *k, const char *name, char *data, size_t size,
                           struct error *err);

/** Take all of it that is in the .deb @path. */
must_check int kernel_read(struct kernel *k, const char *path, struct error *err);
void kernel_done(struct kernel *k);

/** Builders: fill b->dir with "kernel", "initrd", "disk.raw" and set the fields. */
must_check int tiny_build(struct build *b, struct error *err);
must_check int debian_build(struct build *b, struct error *err);

/** Put busybox of the package file @deb into an initramfs, as /bin/busybox and /bin/sh. */
must_check int build_add_busybox(struct cpio *c, const char *deb, struct error *err);

/** Folders and device nodes that every initramfs needs. */
must_check int build_add_skeleton(struct cpio *c);

#endif
