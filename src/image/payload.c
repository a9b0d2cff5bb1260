/* The root file system as one uncompressed tar stream: decompression is host work, the guest only
 * copies.
 *
 * Invariants:
 *  1. A folder enters the stream once, with the mode of the first package that has it.
 *  2. Files below /bin, /sbin, /lib* go below /usr, where those names are links to (merged /usr);
 * dpkg's lists keep the package's own names. Names are safe (unpack.h). One thread. Format: GNU
 * tar, which busybox and tar both read. */
#include "image/payload.h"

#include "base/fd.h"
#include "base/paths.h"
#include "image/digest.h"
#include "image/dpkg_internal.h"
#include "image/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX  (1u << 30)
#define COPY_SIZE (256u << 10)
#define DIR_TABLE (1u << 16) /* buckets of the set of folders; a power of two */
#define INFO_DIR  "var/lib/dpkg/info/"
#define DPKG_DIR  "var/lib/dpkg/"

struct dir {
    struct dir *next;
    char name[];
};

struct payload {
    struct archive *tar;
    char *buffer; /* COPY_SIZE */
    struct dpkg_db db;
    struct dir **dirs; /* DIR_TABLE: the folders in the stream */
    FILE *preinsts;
    char *preinsts_text;
    size_t preinsts_size;
};

/** One package being added. */
struct deb {
    struct payload *p;
    struct dpkg_package pkg;
    const struct payload_tap *tap;
    bool is_base_files;
    struct error *err;
};

static int tar_error(struct payload *p, struct error *err)
{
    int e = archive_errno(p->tar);

    return error_set(err, e > 0 ? e : EIO, "cannot write the root file system's archive: %s",
                     archive_error_string(p->tar));
}

struct payload *payload_new(const char *path, struct error *err)
{
    struct payload *p = calloc(1, sizeof(*p));

    if (p) {
        p->tar = archive_write_new();
        p->buffer = malloc(COPY_SIZE);
        p->dirs = calloc(DIR_TABLE, sizeof(struct dir *));
        p->preinsts = open_memstream(&p->preinsts_text, &p->preinsts_size);
    }
    if (!p || !p->tar || !p->buffer || !p->dirs || !p->preinsts || dpkg_db_init(&p->db) ||
        archive_write_set_format_gnutar(p->tar)) {
        payload_free(p);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    if (archive_write_open_filename(p->tar, path)) {
        (void)tar_error(p, err); /* the sentence is what counts */
        payload_free(p);
        return NULL;
    }
    return p;
}

void payload_free(struct payload *p)
{
    if (!p)
        return;
    if (p->tar)
        (void)archive_write_free(p->tar); /* payload_finish() has closed it, or it is given up */
    for (size_t i = 0; p->dirs && i < DIR_TABLE; i++) {
        for (struct dir *d = p->dirs[i], *next; d; d = next) {
            next = d->next;
            free(d);
        }
    }
    if (p->preinsts)
        (void)fclose(p->preinsts); /* memory only */
    free(p->preinsts_text);
    free(p->dirs);
    free(p->buffer);
    dpkg_db_done(&p->db);
    free(p);
}

/** Remember folder @name. 1 if it is new, 0 if it was known, -ENOMEM. */
static int remember_dir(struct payload *p, const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */

    for (const unsigned char *s = (const unsigned char *)name; *s; s++)
        h = (h ^ *s) * 16777619u;
    struct dir **bucket = &p->dirs[(h ^ h >> 16) & (DIR_TABLE - 1)];
    for (struct dir *d = *bucket; d; d = d->next)
        if (!strcmp(d->name, name))
            return 0;
    size_t n = strlen(name) + 1;
    struct dir *d = malloc(sizeof(*d) + n);
    if (!d)
        return -ENOMEM;
    memcpy(d->name, name, n);
    d->next = *bucket;
    *bucket = d;
    return 1;
}

static int put(struct payload *p, const char *name, unsigned mode, const char *target,
               const void *data, size_t size, struct error *err)
{
    struct archive_entry *e = archive_entry_new();

    if (!e)
        return error_set(err, ENOMEM, "out of memory");
    archive_entry_set_pathname(e, name);
    archive_entry_set_mode(e, (mode_t)mode);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_mtime(e, time(NULL), 0);
    if (target)
        archive_entry_set_symlink(e, target);
    int r = archive_write_header(p->tar, e);
    archive_entry_free(e);
    if (r < ARCHIVE_WARN || (size && archive_write_data(p->tar, data, size) != (la_ssize_t)size))
        return tar_error(p, err);
    return 0;
}

int payload_add_file(struct payload *p, const char *name, unsigned mode, const void *data,
                     size_t size, struct error *err)
{
    return put(p, name, S_IFREG | mode, NULL, data, size, err);
}

int payload_add_link(struct payload *p, const char *name, const char *target, struct error *err)
{
    return put(p, name, S_IFLNK | 0777, target, NULL, 0, err);
}

int payload_add_dir(struct payload *p, const char *name, unsigned mode, struct error *err)
{
    int r = remember_dir(p, name);

    if (r <= 0)
        return r ? error_set(err, ENOMEM, "out of memory") : 0;
    return put(p, name, S_IFDIR | mode, NULL, NULL, 0, err);
}

const char *payload_preinsts(struct payload *p)
{
    return fflush(p->preinsts) ? "" : p->preinsts_text;
}

/** Where @name is to go on a merged /usr; @buf serves for the result. */
static const char *merged_name(const struct deb *d, const char *name, char *buf, size_t room)
{
    static const char *const roots[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

    for (size_t i = 0; !d->is_base_files && i < ARRAY_SIZE(roots); i++) {
        size_t n = strlen(roots[i]);

        if (strncmp(name, roots[i], n) || (name[n] && name[n] != '/'))
            continue;
        (void)snprintf(buf, room, "usr/%s", name);
        return buf;
    }
    return name;
}

/** Copy a regular file's contents to the tar, to @md5 if the file is a conffile. */
static int copy_data(struct deb *d, struct archive *a, struct digest *md5)
{
    la_ssize_t n;

    while ((n = archive_read_data(a, d->p->buffer, COPY_SIZE)) > 0) {
        if (md5)
            digest_add(md5, d->p->buffer, (size_t)n);
        if (archive_write_data(d->p->tar, d->p->buffer, (size_t)n) != n)
            return tar_error(d->p, d->err);
    }
    return n < 0 ? error_set(d->err, EBADMSG, "damaged package: %s", archive_error_string(a)) : 0;
}

static int copy_file(struct deb *d, struct archive *a, const char *name)
{
    char sum[DIGEST_HEX_MAX];

    if (d->tap && d->tap->wants(name, d->tap->arg)) {
        char *data = NULL;
        size_t size = 0;
        int r = deb_read_entry(a, FILE_MAX, &data, &size, d->err);

        if (r)
            return r;
        if (size && archive_write_data(d->p->tar, data, size) != (la_ssize_t)size) {
            free(data);
            return tar_error(d->p, d->err);
        }
        return d->tap->take(name, data, size, NULL, d->tap->arg);
    }
    if (!dpkg_package_is_conffile(&d->pkg, name))
        return copy_data(d, a, NULL);
    struct digest *md5 = digest_new(DIGEST_MD5);
    if (!md5)
        return error_set(d->err, ENOMEM, "cannot compute MD5 digests");
    int r = copy_data(d, a, md5);
    if (r) {
        digest_free(md5);
        return r;
    }
    if (!digest_end(md5, sum))
        return error_set(d->err, EIO, "cannot compute MD5 digests");
    fprintf(d->pkg.conffile_sums, " /%s %s\n", name, sum);
    return 0;
}

/** Set the entry's names for the tar. 0 to copy it, 1 to leave it out, -errno. */
static int prepare_entry(struct deb *d, struct archive_entry *entry, const char *name)
{
    char merged[4104], target[4104];
    const char *to = merged_name(d, name, merged, sizeof(merged));
    const char *hard = archive_entry_hardlink(entry);

    if (archive_entry_filetype(entry) == AE_IFDIR && !hard) {
        int r = remember_dir(d->p, to);

        if (r <= 0)
            return r ? error_set(d->err, ENOMEM, "out of memory") : 1;
    }
    if (hard) {
        while (!strncmp(hard, "./", 2))
            hard += 2;
        cleanup(freep) char *copy = strdup(merged_name(d, hard, target, sizeof(target)));
        if (!copy)
            return error_set(d->err, ENOMEM, "out of memory");
        archive_entry_set_hardlink(entry, copy);
    }
    archive_entry_set_pathname(entry, to);
    archive_entry_set_uname(entry, NULL); /* numbers only: names are the guest's business */
    archive_entry_set_gname(entry, NULL);
    return 0;
}

static int add_data(struct archive *a, struct archive_entry *entry, const char *name, void *arg)
{
    struct deb *d = arg;
    bool is_link = archive_entry_filetype(entry) == AE_IFLNK;

    fprintf(d->pkg.list, "/%s\n", name);
    int r = prepare_entry(d, entry, name);
    if (r)
        return r < 0 ? r : 0;
    if (archive_write_header(d->p->tar, entry) < ARCHIVE_WARN)
        return tar_error(d->p, d->err);
    if (is_link && d->tap && d->tap->wants(name, d->tap->arg))
        return d->tap->take(name, NULL, 0, archive_entry_symlink(entry), d->tap->arg);
    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry))
        return 0;
    return copy_file(d, a, name);
}

static int add_control(const char *name, const char *data, size_t size, void *arg)
{
    struct deb *d = arg;
    struct slice value;

    if (strchr(name, '/')) /* info/ is flat */
        return 0;
    if (!strcmp(name, "control") && control_find((struct slice){data, size}, "Package", &value))
        d->is_base_files = slice_is(value, "base-files");
    return dpkg_package_add(&d->pkg, name, data, size) ? error_set(d->err, ENOMEM, "out of memory")
                                                       : 0;
}

/** Write the package's files in info/ and enter it into the database. */
static int register_package(struct deb *d)
{
    static const char *const scripts[] = {"preinst", "postinst", "prerm", "postrm", "config"};
    struct payload *p = d->p;
    cleanup(freep) char *stem = dpkg_package_stem(&d->pkg);
    int r = stem ? dpkg_db_add(&p->db, &d->pkg) : -EBADMSG;

    if (r)
        return error_set(d->err, -r, "the package's control file cannot be used");
    for (size_t i = 0; i < d->pkg.file_count && !r; i++) {
        const struct dpkg_file *f = &d->pkg.files[i];
        unsigned mode = 0644;

        if (!strcmp(f->name, "control"))
            continue;
        for (size_t s = 0; s < ARRAY_SIZE(scripts); s++)
            mode = strcmp(f->name, scripts[s]) ? mode : 0755;
        if (!strcmp(f->name, "preinst"))
            fprintf(p->preinsts, "%s\n", stem);
        cleanup(freep) char *path = paths_format(d->err, INFO_DIR "%s.%s", stem, f->name);
        r = path ? payload_add_file(p, path, mode, f->data, f->size, d->err) : -ENOMEM;
    }
    cleanup(freep) char *list = paths_format(d->err, INFO_DIR "%s.list", stem);
    if (!r && (!list || fflush(d->pkg.list)))
        r = error_set(d->err, ENOMEM, "out of memory");
    return r ? r : payload_add_file(p, list, 0644, d->pkg.list_text, d->pkg.list_size, d->err);
}

int payload_add_deb(struct payload *p, const char *deb, const struct payload_tap *tap,
                    struct error *err)
{
    static const struct deb_ops ops = {.control = add_control, .data = add_data};
    struct deb d = {.p = p, .tap = tap, .err = err};

    if (dpkg_package_init(&d.pkg))
        return error_set(err, ENOMEM, "out of memory");
    int r = deb_read(deb, &ops, &d, err);
    if (!r)
        r = register_package(&d);
    dpkg_package_done(&d.pkg);
    return r;
}

static int add_triggers(struct payload *p, struct error *err)
{
    int r = 0;

    for (size_t i = 0; i < p->db.trigger_count && !r; i++) {
        const char *name = p->db.triggers[i].name;
        bool seen = false;

        for (size_t j = 0; j < i; j++)
            seen |= !strcmp(p->db.triggers[j].name, name);
        if (seen)
            continue;
        cleanup(freep) char *text = dpkg_db_trigger_text(&p->db, name);
        cleanup(freep) char *path = paths_format(err, DPKG_DIR "triggers/%s", name);
        if (!text || !path)
            return error_set(err, ENOMEM, "out of memory");
        r = payload_add_file(p, path, 0644, text, strlen(text), err);
    }
    return r;
}

int payload_finish(struct payload *p, struct error *err)
{
    static const char *const dirs[] = {"info", "updates", "triggers", "alternatives", "parts"};
    int r = 0;

    if (fflush(p->db.status) || fflush(p->db.file_triggers))
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < ARRAY_SIZE(dirs) && !r; i++) {
        cleanup(freep) char *path = paths_format(err, DPKG_DIR "%s", dirs[i]);

        r = path ? payload_add_dir(p, path, 0755, err) : -ENOMEM;
    }
    if (!r)
        r = payload_add_file(p, DPKG_DIR "status", 0644, p->db.status_text, p->db.status_size, err);
    if (!r)
        r = payload_add_file(p, DPKG_DIR "available", 0644, "", 0, err);
    if (!r)
        r = payload_add_file(p, INFO_DIR "format", 0644, "1\n", 2, err);
    if (!r)
        r = payload_add_file(p, DPKG_DIR "triggers/File", 0644, p->db.file_triggers_text,
                             p->db.file_triggers_size, err);
    if (!r)
        r = add_triggers(p, err);
    if (!r && archive_write_close(p->tar))
        r = tar_error(p, err);
    return r;
}
