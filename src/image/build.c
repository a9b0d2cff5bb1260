/* image_build(): lock, index, packages, assembly, rename. The parts of one kind of image are in
 * tiny.c and debian.c. Runs on the caller's thread. */
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "image/build_internal.h"
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define REPORT_INTERVAL_NS 100000000

static int report(struct build *b, bool now)
{
    int64_t t = host_now_ns();

    if (!b->opts.progress || (!now && t - b->reported_ns < REPORT_INTERVAL_NS))
        return 0;
    b->reported_ns = t;
    return b->opts.progress(&b->progress, b->opts.arg);
}

int build_stage(struct build *b, const char *stage, uint64_t total, bool is_bytes,
                struct error *err)
{
    b->progress.stage = stage;
    b->progress.stage_nr++;
    b->progress.done = 0;
    b->progress.total = total;
    b->progress.is_bytes = is_bytes;
    return report(b, true) ? error_set(err, ECANCELED, "cancelled") : 0;
}

int build_report(uint64_t done, uint64_t total, void *build)
{
    struct build *b = build;

    b->progress.done = done;
    b->progress.total = total;
    return report(b, done == total && total);
}

char *build_deb_path(const struct build *b, const struct package *p, struct error *err)
{
    return paths_format(err, "%s/%.*s.deb", b->pool, (int)p->sha256.n, p->sha256.p);
}

static int describe(const struct build *b, const struct package *p, struct fetch *ret,
                    struct error *err)
{
    assert(p->sha256.n == DIGEST_HEX_MAX - 1); /* the index takes no other */
    ret->size_bytes = p->size;
    memcpy(ret->sha256, p->sha256.p, p->sha256.n);
    for (size_t i = 0; i < p->sha256.n; i++) {
        if (!memchr("0123456789abcdef", ret->sha256[i], 16))
            return error_set(err, EBADMSG, "package '%.*s' has a malformed digest", (int)p->name.n,
                             p->name.p);
    }
    ret->path = build_deb_path(b, p, err);
    ret->url = paths_format(err, "%s/%.*s", b->suite.mirror, (int)p->filename.n, p->filename.p);
    return ret->path && ret->url ? 0 : -ENOMEM;
}

int build_fetch(struct build *b, struct package *const *list, size_t n, struct error *err)
{
    struct fetch *files = calloc(n + 1, sizeof(*files));
    char stage[64];
    int r = files ? 0 : error_set(err, ENOMEM, "out of memory");

    for (size_t i = 0; i < n && !r; i++)
        r = describe(b, list[i], &files[i], err);
    (void)snprintf(stage, sizeof(stage), "Downloading %zu packages", n);
    if (!r)
        r = build_stage(b, stage, 0, true, err);
    if (!r)
        r = fetch_all(files, n, build_report, b, err);
    b->progress.stage = "";
    for (size_t i = 0; files && i < n; i++) {
        free(files[i].path);
        free(files[i].url);
    }
    free(files);
    return r;
}

/** Append the packages that @of depends on and whose names begin with @prefix. */
static void find_parts(struct build *b, const struct package *of, const char *prefix,
                       struct package *ret[BUILD_KERNEL_MAX], size_t *ret_n)
{
    for (struct slice rest = of->depends, one; slice_cut(&rest, ',', &one);) {
        struct relation r;

        if (!relation_parse(one, &r) || !slice_starts(r.name, prefix))
            continue;
        struct package *p = index_find(b->suite.index, r.name);
        if (p && *ret_n < BUILD_KERNEL_MAX)
            ret[(*ret_n)++] = p;
    }
}

int build_find_kernel(struct build *b, struct package *ret[BUILD_KERNEL_MAX], size_t *ret_n,
                      struct error *err)
{
    char name[IMAGE_WORD_MAX + 16];

    (void)snprintf(name, sizeof(name), "linux-image-%s", b->spec.arch);
    const struct package *meta = index_find(b->suite.index, slice_of(name));
    if (!meta)
        return error_set(err, ENOENT, "suite '%s' has no kernel package '%s'", b->spec.suite, name);
    *ret_n = 0;
    find_parts(b, meta, "linux-image-", ret, ret_n);
    if (!*ret_n)
        return error_set(err, ENOENT, "package '%s' depends on no kernel that the mirror has",
                         name);
    *ret_n = 1;
    find_parts(b, ret[0], "linux-binary-", ret, ret_n);
    find_parts(b, ret[0], "linux-modules-", ret, ret_n);
    return 0;
}

/** Delete partial downloads NAME.PID.part of processes that are no more. */
static void sweep_parts(const char *dir)
{
    DIR *d = opendir(dir);

    for (struct dirent *e; d && (e = readdir(d));) {
        char *end = strstr(e->d_name, ".part");
        int pid = 0;

        if (!end || end[5])
            continue;
        while (end > e->d_name && end[-1] != '.')
            end--;
        if (sscanf(end, "%d", &pid) != 1 || pid <= 0 || !kill(pid, 0) || errno != ESRCH)
            continue;
        (void)unlinkat(dirfd(d), e->d_name, 0); /* another process may have done it */
    }
    if (d)
        closedir(d);
}

static int open_suite(struct build *b, struct error *err)
{
    struct suite_opts opts = {
        .keyring = b->opts.keyring,
        .fresh = b->opts.fresh,
        .unsigned_ok = b->opts.unsigned_ok,
        .progress = build_report,
        .arg = b,
    };
    int r = build_stage(b, "Reading the package index", 0, true, err);

    if (!r)
        r = suite_open(&b->spec, &opts, &b->suite, err);
    if (!r)
        memcpy(b->spec.mirror, b->suite.mirror, sizeof(b->spec.mirror));
    if (!r && b->suite.expired)
        log_warn("the index of suite '%s' at '%s' has passed its date: the mirror is out of date, "
                 "or this host's clock is wrong",
                 b->spec.suite, b->suite.mirror);
    return r;
}

static int build_in_folder(struct build *b, struct error *err)
{
    int r = open_suite(b, err);

    if (r)
        return r;
    r = b->spec.kind == IMAGE_TINY ? tiny_build(b, err) : debian_build(b, err);
    if (r)
        return r;
    struct store_meta meta = {
        .spec = &b->spec,
        .append = b->append ? b->append : "",
        .kernel_release = b->release,
        .has_initrd = b->has_initrd,
        .has_disk = b->has_disk,
    };
    return store_commit(b->dir, &meta, err);
}

static void build_done(struct build *b)
{
    suite_done(&b->suite);
    if (b->dir)
        (void)paths_remove(b->dir); /* gone if it was committed; else the next build sweeps it */
    free(b->dir);
    free(b->pool);
    free(b->append);
    free(b->release);
}

static int wait_tick(void *arg)
{
    return report(arg, false);
}

/** The image's lock is held. */
static int build_locked(struct build *b, struct image **ret, struct error *err)
{
    b->pool = paths_cache("pool", err);
    int r = b->pool ? store_begin(&b->spec, &b->dir, err) : -EIO;

    if (!r) {
        sweep_parts(b->pool);
        r = build_in_folder(b, err);
    }
    const struct image_spec spec = b->spec;
    build_done(b);
    return r ? r : image_find(&spec, ret, err);
}

int image_build(const struct image_spec *spec, const struct image_build_opts *opts,
                struct image **ret, struct error *err)
{
    struct build b = {.spec = *spec};

    if (opts)
        b.opts = *opts;
    b.progress.stage = "Waiting for another build of this image";
    b.progress.stage_count = spec->kind == IMAGE_TINY ? 3 : 4;
    int lock = store_lock(spec, true, wait_tick, &b, err);
    if (lock < 0)
        return lock;
    int r = b.opts.rebuild || image_find(spec, ret, NULL) ? build_locked(&b, ret, err) : 0;
    store_unlock(spec, lock);
    return r;
}
