/* SHA-256 sums by member. */
#include "bundle/sum.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sums_begin(struct sums *s, const char *name, struct error *err)
{
    struct sum *grown = reallocarray(s->v, s->n + 1, sizeof(*grown));

    if (!grown)
        return error_set(err, ENOMEM, "out of memory");
    s->v = grown;
    s->v[s->n] = (struct sum){.name = strdup(name)};
    if (!s->digest)
        s->digest = EVP_MD_CTX_new();
    if (!s->v[s->n].name || !s->digest || !EVP_DigestInit_ex(s->digest, EVP_sha256(), NULL)) {
        free(s->v[s->n].name);
        return error_set(err, ENOMEM, "out of memory");
    }
    s->n++;
    return 0;
}

void sums_update(struct sums *s, const void *data, size_t size)
{
    (void)EVP_DigestUpdate(s->digest, data, size); /* of a digest that was begun: cannot fail */
}

void sums_end(struct sums *s)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;

    (void)EVP_DigestFinal_ex(s->digest, digest, &size); /* likewise */
    for (unsigned i = 0; i < size && i < 32; i++)
        (void)snprintf(s->v[s->n - 1].hex + 2 * (size_t)i, 3, "%02x", digest[i]);
}

const char *sums_find(const struct sums *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++) {
        if (!strcmp(s->v[i].name, name))
            return s->v[i].hex;
    }
    return NULL;
}

void sums_done(struct sums *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->v[i].name);
    free(s->v);
    EVP_MD_CTX_free(s->digest);
    *s = (struct sums){0};
}
