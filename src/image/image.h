/* Bootable guest images: named, built from Debian packages, kept in the user's data folder.
 *
 *   struct image_spec spec;  image_spec_parse("debian:sid", NULL, NULL, &spec, &err)
 *   image_find(&spec, &image, &err)  ->  -ENOENT: image_build(&spec, &opts, &image, &err)
 *
 * An image is a folder $XDG_DATA_HOME/posada/images/KIND-SUITE-ARCH. It appears by one rename when
 * it is whole; builders of one image exclude each other by a lock file. Nobody writes to a finished
 * image: guests run on a clone (image_clone_disk()) or an overlay of its disk. */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include "base/error.h"

#include <time.h>

#define IMAGE_WORD_MAX   32  /* suite, architecture, with the final NUL */
#define IMAGE_MIRROR_MAX 256 /* URL of a package mirror, likewise */
#define IMAGE_NAME_MAX   80  /* "debian:trixie/riscv64", likewise */

#define IMAGE_DEFAULT_SUITE      "trixie"
#define IMAGE_DEFAULT_ARCH       "riscv64"
#define IMAGE_DEFAULT_DISK_BYTES (8ULL << 30)

enum image_kind {
    IMAGE_TINY,   /* Debian's kernel and busybox in an initramfs; no disk */
    IMAGE_DEBIAN, /* a minimal Debian system on a GPT disk (ESP, ext4 root) */
};

/** What a user asked for. Plain value: copy freely. */
struct image_spec {
    enum image_kind kind;
    char suite[IMAGE_WORD_MAX];    /* "trixie" */
    char arch[IMAGE_WORD_MAX];     /* Debian's name: "riscv64" */
    char mirror[IMAGE_MIRROR_MAX]; /* without a final '/'; "" = the host's own, else deb.debian.org
                                    */
    uint64_t disk_bytes;           /* virtual size of the disk */
};

/** Parse "KIND[:SUITE]" (tiny, debian, debian:sid...). @arch and @mirror may be NULL: defaults.
 * Writes @ret only on success. -EINVAL with a sentence that names what was expected. */
must_check int image_spec_parse(const char *text, const char *arch, const char *mirror,
                                struct image_spec *ret, struct error *err);

/** Is @text a well-formed image name (and not, say, a file)? */
bool image_spec_is_valid(const char *text);

/** The name to show and to type: "tiny", "debian:trixie", "debian:sid/arm64" (arch when it is not
 * the default). */
void image_spec_name(const struct image_spec *spec, char ret[IMAGE_NAME_MAX]);

/** Can a guest of image @name, as image_spec_name() prints it, start with so much memory? -EINVAL
 * with the least; what is not known can. */
must_check int image_check_memory(const char *name, uint64_t bytes, struct error *err);

/** A finished image; all strings live in one object freed by image_free(). */
struct image {
    struct image_spec spec; /* what it was built from; mirror is the one really used */
    char *name;             /* image_spec_name() */
    char *dir;              /* absolute path of its folder */
    char *kernel;           /* raw kernel image for direct boot */
    char *initrd;           /* NULL = none */
    char *disk;             /* raw disk image; NULL = none (tiny) */
    char *append;           /* kernel arguments it needs (root=...), without console=; may be "" */
    char *kernel_release;   /* "6.12.107+deb13-riscv64" */
    time_t built;
    uint64_t size_bytes; /* host storage in use */
};

void image_free(struct image *image);

/** Look a finished image up. -ENOENT when it was not built (sentence set), else 0 and an image that
 * is the caller's. Any thread. */
must_check int image_find(const struct image_spec *spec, struct image **ret, struct error *err);

/** All finished images, sorted by name; free with image_list_free(). */
must_check int image_list(struct image ***ret, size_t *ret_n, struct error *err);
void image_list_free(struct image **images, size_t n);

/** Delete an image. -ENOENT if there is none, -EBUSY while it is being built. */
must_check int image_remove(const struct image_spec *spec, struct error *err);

struct image_progress {
    const char *stage; /* "Downloading 112 packages": fits one line */
    uint64_t done;     /* in bytes or steps of the stage */
    uint64_t total;    /* 0 = unknown */
    bool is_bytes;     /* done and total count bytes */
    unsigned stage_nr; /* 1..stage_count */
    unsigned stage_count;
};

struct image_machine; /* image/machine.h */

struct image_build_opts {
    /** Called on the builder's thread, some ten times a second at most. Anything but 0 cancels the
     * build, which then fails with -ECANCELED. NULL: no reports. */
    int (*progress)(const struct image_progress *p, void *arg);
    void *arg;
    bool rebuild;         /* replace a finished image; else it is returned as it is */
    bool fresh;           /* ask the mirror again even if the cached index is less than a day old */
    bool unsigned_ok;     /* skip the signature of the index (for a private mirror without one) */
    const char *keyring;  /* of the mirror, OpenPGP binary; NULL: Debian's archive keys */
    unsigned cpus;        /* of the build machine; 0 = as the host has, at most 4 */
    const char *log_path; /* keep the build machine's console here; NULL: only quoted in errors */
    /** How to run the build machine; NULL: a Posada machine. (A seam for tests.) */
    int (*run_machine)(const struct image_machine *m, struct error *err);
};

/** Build @spec's image: download packages (cached, verified), assemble, and for IMAGE_DEBIAN set it
 * up inside a build machine. Waits for another builder of the same image. Takes seconds (tiny) to
 * minutes. @opts may be NULL. On failure nothing half-made is left. */
must_check int image_build(const struct image_spec *spec, const struct image_build_opts *opts,
                           struct image **ret, struct error *err);

/** Copy @image's disk to the new file @path, sharing blocks where the file system can, sparse
 * elsewhere, and grow it to @size_bytes if that is larger (0: keep). The guest grows its root file
 * system when it boots. -EEXIST if @path exists; -EINVAL if the image has no disk. */
must_check int image_clone_disk(const struct image *image, const char *path, uint64_t size_bytes,
                                struct error *err);

/** The bytes to send to port `posada.cmd` so that an image's guest runs @argv (NULL-terminated)
 * with
 * @env ("K=V", NULL-terminated, may be NULL) in folder @cwd (NULL: root's home):
 * docs/guest-command.md. Command's stdin follows these bytes on the same port. *@ret is the
 * caller's to free(). -EINVAL for an @env entry without a valid name; -E2BIG past 1 MiB. */
must_check int image_command_encode(const char *const *argv, const char *const *env,
                                    const char *cwd, char **ret, size_t *ret_size,
                                    struct error *err);

/** The kernel argument that makes an image's guest mount virtio-fs tag @tag at @path:
 * "posada.mount=TAG:PATH[:ro]", odd bytes of @path as %OOO (octal). The caller frees it; NULL: no
 * memory, or
 * @tag holds other than letters, digits, '.', '_', '-', or @path is not absolute. */
char *image_mount_argument(const char *tag, const char *path, bool read_only);

#endif
