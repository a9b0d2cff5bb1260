/* A suite of a mirror: its signed Release file and its index of packages. */
#ifndef IMAGE_SUITE_H
#define IMAGE_SUITE_H

#include "image/fetch.h"
#include "image/image.h"
#include "image/index.h"

/** What a Release file says about one suite and architecture. */
struct release {
    char index_path[128]; /* "main/binary-riscv64/Packages.xz" */
    char index_sha256[DIGEST_HEX_MAX];
    uint64_t index_bytes;
    char codename[IMAGE_WORD_MAX];
    bool by_hash;       /* files are also found under by-hash/SHA256/ */
    time_t valid_until; /* 0 = for ever */
};

/** Read the @text of a Release file (signature already removed and checked). -EINVAL if it is not
 * one or of another suite than @suite; -ENOENT if it has no packages for @arch. */
must_check int release_parse(struct slice text, const char *suite, const char *arch,
                             struct release *ret, struct error *err);

struct suite {
    struct index *index;
    struct release release;
    char mirror[IMAGE_MIRROR_MAX];
    bool expired; /* the Release file is past its Valid-Until */
};

struct suite_opts {
    const char *keyring; /* NULL: Debian's */
    bool fresh;
    bool unsigned_ok;
    fetch_progress_fn *progress;
    void *arg;
};

/** Download (or take from the cache) and verify the index of @spec's suite. suite_done() frees it.
 */
must_check int suite_open(const struct image_spec *spec, const struct suite_opts *opts,
                          struct suite *ret, struct error *err);
void suite_done(struct suite *suite);

#endif
