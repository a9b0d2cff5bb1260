/* SHA-256 and MD5 through OpenSSL. A failure inside is remembered and reported at the end. One
 * thread per digest. MD5 serves dpkg's database only, never as a proof. */
#include "image/digest.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>

struct digest {
    EVP_MD_CTX *ctx;
    bool failed;
};

struct digest *digest_new(enum digest_kind kind)
{
    struct digest *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->ctx = EVP_MD_CTX_new();
    if (!d->ctx ||
        !EVP_DigestInit_ex(d->ctx, kind == DIGEST_SHA256 ? EVP_sha256() : EVP_md5(), NULL)) {
        digest_free(d);
        return NULL;
    }
    return d;
}

void digest_add(struct digest *d, const void *data, size_t size)
{
    if (!EVP_DigestUpdate(d->ctx, data, size))
        d->failed = true;
}

bool digest_end(struct digest *d, char ret[DIGEST_HEX_MAX])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    bool ok = !d->failed && EVP_DigestFinal_ex(d->ctx, md, &n) && 2 * n < DIGEST_HEX_MAX;

    for (unsigned i = 0; ok && i < n; i++) {
        ret[2 * i] = "0123456789abcdef"[md[i] >> 4];
        ret[2 * i + 1] = "0123456789abcdef"[md[i] & 15];
    }
    if (ok)
        ret[2 * n] = 0;
    digest_free(d);
    return ok;
}

void digest_free(struct digest *d)
{
    if (!d)
        return;
    EVP_MD_CTX_free(d->ctx);
    free(d);
}

int digest_memory(const void *data, size_t size, char ret[DIGEST_HEX_MAX])
{
    struct digest *d = digest_new(DIGEST_SHA256);

    if (!d)
        return -ENOMEM;
    digest_add(d, data, size);
    return digest_end(d, ret) ? 0 : -EIO;
}

int digest_file(const char *path, char ret[DIGEST_HEX_MAX])
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    cleanup(freep) char *buf = malloc(1 << 16);
    ssize_t n;

    if (fd < 0)
        return -errno;
    struct digest *d = digest_new(DIGEST_SHA256);
    if (!d || !buf) {
        digest_free(d);
        return -ENOMEM;
    }
    while ((n = read(fd, buf, 1 << 16)) > 0)
        digest_add(d, buf, (size_t)n);
    if (n < 0) {
        int e = errno;

        digest_free(d);
        return -e;
    }
    return digest_end(d, ret) ? 0 : -EIO;
}
