/* SHA-256 sums by member. Private to bundle. */
#ifndef BUNDLE_SUM_H
#define BUNDLE_SUM_H

#include "base/error.h"
#include "base/macros.h"

#include <openssl/evp.h>

struct sum {
    char *name; /* heap */
    char hex[65];
};

struct sums {
    struct sum *v; /* heap; in the order in which they came */
    size_t n;
    EVP_MD_CTX *digest; /* of the member in progress; made at first use */
};

must_check int sums_begin(struct sums *s, const char *name, struct error *err);
void sums_update(struct sums *s, const void *data, size_t size);
void sums_end(struct sums *s);
const char *sums_find(const struct sums *s, const char *name);
void sums_done(struct sums *s);

#endif
