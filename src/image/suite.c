/* Opening a suite: InRelease, its signature, its index. All of it is cached; InRelease for a day.
 *
 * Trust: gpgv checks InRelease against Debian's keyring and hands out the signed text, and only
 * that text is read; it has the index's digest, and the index has every package's. One thread. */
#include "image/suite.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "image/mirror.h"
#include "image/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define RELEASE_MAX      (8u << 20)
#define INDEX_MAX        (1u << 30)
#define RELEASE_AGE_SECS 86400

extern char **environ;

static const char *const keyrings[] = {
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
};

static int find_keyring(const struct suite_opts *opts, const char **ret, struct error *err)
{
    if (opts->keyring) {
        *ret = opts->keyring;
        return access(*ret, R_OK)
                   ? error_set(err, errno, "cannot read keyring '%s': %s", *ret, strerror(errno))
                   : 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(keyrings); i++) {
        if (!access(keyrings[i], R_OK)) {
            *ret = keyrings[i];
            return 0;
        }
    }
    return error_set(err, ENOENT,
                     "Debian's archive keys, which prove that packages are genuine, are not "
                     "installed: run 'apt install debian-archive-keyring'");
}

/** Run gpgv, its output dropped into @log_path. Returns its wait status or -errno. */
static int run_gpgv(const char *keyring, const char *in, const char *out, const char *log_path)
{
    const char *argv[] = {"gpgv", "--quiet", "--keyring", keyring, "--output", out, in, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = 0;

    if (posix_spawn_file_actions_init(&actions))
        return -ENOMEM;
    int r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!r)
        r = posix_spawn_file_actions_addopen(&actions, 2, log_path, O_WRONLY | O_CREAT | O_TRUNC,
                                             0600);
    if (!r)
        r = posix_spawn_file_actions_adddup2(&actions, 2, 1);
    if (!r)
        r = posix_spawnp(&pid, "gpgv", &actions, NULL, (char **)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
    if (r)
        return -r;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return status;
}

static int gpgv_failed(int status, const char *suite, const char *log_path, struct error *err)
{
    cleanup(freep) char *log = NULL;
    size_t size = 0;

    if (status == -ENOENT || (status > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127))
        return error_set(err, ENOENT,
                         "gpgv, which checks the mirror's signature, is not installed: run 'apt "
                         "install gpgv'");
    if (status < 0)
        return error_set(err, -status, "cannot run gpgv: %s", strerror(-status));
    if (!paths_read(log_path, 4096, &log, &size, NULL))
        for (char *p = log; *p; p++)
            *p = *p == '\n' ? ' ' : *p;
    return error_set(err, EBADMSG, "the signature of suite '%s' does not hold: %.300s", suite,
                     log ? log : "gpgv says nothing");
}

/** The text of the InRelease file @path that is covered by its signature; *@ret is the caller's. */
static int verify(const char *path, const char *suite, const struct suite_opts *opts, char **ret,
                  size_t *ret_size, struct error *err)
{
    const char *keyring = NULL;
    cleanup(freep) char *out = paths_format(err, "%s.%d.part", path, (int)getpid());
    cleanup(freep) char *log = paths_format(err, "%s.log.%d.part", path, (int)getpid());

    if (!out || !log)
        return -ENOMEM;
    int r = find_keyring(opts, &keyring, err);
    if (r)
        return r;
    (void)unlink(out); /* gpgv would ask before it overwrites */
    int status = run_gpgv(keyring, path, out, log);
    r = status ? gpgv_failed(status, suite, log, err)
               : paths_read(out, RELEASE_MAX, ret, ret_size, err);
    (void)unlink(out);
    (void)unlink(log);
    return r;
}

/** Remove the armour of a clear-signed message without looking at the signature (RFC 4880 §7). */
static struct slice strip_armour(struct slice text)
{
    static const char head[] = "-----BEGIN PGP SIGNED MESSAGE-----";
    static const char tail[] = "-----BEGIN PGP SIGNATURE-----";

    if (!slice_starts(text, head))
        return text;
    const char *body = memmem(text.p, text.n, "\n\n", 2);
    const char *end = memmem(text.p, text.n, tail, sizeof(tail) - 1);
    if (!body || !end || end < body)
        return (struct slice){text.p, 0};
    return (struct slice){body + 2, (size_t)(end - body - 2)};
}

/** Put the suite's InRelease file at @path, unless a recent one is there. */
static int refresh_release(const char *path, const struct image_spec *spec, const char *mirror,
                           bool fresh, struct error *err)
{
    struct stat st;
    bool cached = !stat(path, &st);
    struct error why = {0};
    cleanup(freep) char *data = NULL;
    size_t size = 0;

    if (cached && !fresh && time(NULL) - st.st_mtime < RELEASE_AGE_SECS)
        return 0;
    cleanup(freep) char *url = paths_format(err, "%s/dists/%s/InRelease", mirror, spec->suite);
    if (!url)
        return -ENOMEM;
    int r = fetch_memory(url, RELEASE_MAX, &data, &size, &why);
    if (!r)
        return paths_write(path, data, size, err);
    if (r == -ENOENT)
        return error_set(err, ENOENT, "mirror '%s' has no suite '%s'", mirror, spec->suite);
    if (cached && !fresh) {
        log_warn("%s; using the index of an earlier day", error_text(&why));
        return 0;
    }
    return error_set(err, -r, "%s; another mirror can be named with --mirror", error_text(&why));
}

static int load_release(const struct image_spec *spec, const char *cache,
                        const struct suite_opts *opts, struct suite *suite, struct error *err)
{
    char sum[DIGEST_HEX_MAX];
    cleanup(freep) char *text = NULL;
    size_t size = 0;

    if (digest_memory(suite->mirror, strlen(suite->mirror), sum))
        return error_set(err, EIO, "cannot compute a SHA-256 digest");
    cleanup(freep) char *path = paths_format(err, "%s/%.16s-%s.InRelease", cache, sum, spec->suite);
    if (!path)
        return -ENOMEM;
    int r = refresh_release(path, spec, suite->mirror, opts->fresh, err);
    if (r)
        return r;
    r = opts->unsigned_ok ? paths_read(path, RELEASE_MAX, &text, &size, err)
                          : verify(path, spec->suite, opts, &text, &size, err);
    if (r) {
        (void)unlink(path); /* so that the next attempt asks the mirror again */
        return r;
    }
    r = release_parse(strip_armour((struct slice){text, size}), spec->suite, spec->arch,
                      &suite->release, err);
    suite->expired = suite->release.valid_until && suite->release.valid_until < time(NULL);
    return r;
}

static int load_index(const struct image_spec *spec, const char *cache,
                      const struct suite_opts *opts, struct suite *suite, struct error *err)
{
    const struct release *rel = &suite->release;
    cleanup(freep) char *path = paths_format(err, "%s/%s", cache, rel->index_sha256);
    cleanup(freep) char *url =
        rel->by_hash
            ? paths_format(err, "%s/dists/%s/main/binary-%s/by-hash/SHA256/%s", suite->mirror,
                           spec->suite, spec->arch, rel->index_sha256)
            : paths_format(err, "%s/dists/%s/%s", suite->mirror, spec->suite, rel->index_path);
    cleanup(freep) char *packed = NULL;
    char *text = NULL;
    size_t packed_size = 0, size = 0;

    if (!path || !url)
        return -ENOMEM;
    struct fetch file = {.url = url, .path = path, .size_bytes = rel->index_bytes};
    memcpy(file.sha256, rel->index_sha256, sizeof(file.sha256));
    int r = fetch_all(&file, 1, opts->progress, opts->arg, err);
    if (!r)
        r = paths_read(path, INDEX_MAX, &packed, &packed_size, err);
    if (!r)
        r = unpack_memory(packed, packed_size, INDEX_MAX, &text, &size, err);
    if (!r)
        r = index_new(text, size, &suite->index, err);
    return r;
}

int suite_open(const struct image_spec *spec, const struct suite_opts *opts, struct suite *ret,
               struct error *err)
{
    struct suite suite = {0};
    cleanup(freep) char *cache = paths_cache("index", err);

    if (!cache)
        return -EIO;
    if (*spec->mirror)
        memcpy(suite.mirror, spec->mirror, sizeof(suite.mirror));
    else
        mirror_of_host("", suite.mirror);
    int r = load_release(spec, cache, opts, &suite, err);
    if (!r)
        r = load_index(spec, cache, opts, &suite, err);
    if (r)
        return r;
    *ret = suite;
    return 0;
}

void suite_done(struct suite *suite)
{
    index_free(suite->index);
    *suite = (struct suite){0};
}
