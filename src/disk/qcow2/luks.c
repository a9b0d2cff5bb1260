/* Encrypted QCOW2 images: the key in the LUKS header, and sectors under it. Images are opened with
 * a passphrase and used like others; they are not made here.
 *
 * The header is a file's word: each number is checked before it is used, and what one key slot may
 * cost is bounded.
 *
 * Threads: the keys are fixed at open; each call has a cipher context of its own.
 * Spec: LUKS On-Disk Format 1.2.3 (§2 header, §2.4 anti-forensic splitting, §4 key recovery);
 * QCOW2 docs/interop/qcow2.txt, "Full disk encryption header pointer"; XTS: IEEE 1619, with the
 * number of the 512-byte sector of the file as its tweak ("plain64"). */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#define SECTOR           512u
#define HEADER_BYTES     592u
#define VERSION_AT       6u
#define CIPHER_AT        8u
#define MODE_AT          40u
#define HASH_AT          72u
#define NAME_BYTES       32u
#define KEY_BYTES_AT     108u
#define DIGEST_AT        112u
#define DIGEST_BYTES     20u
#define DIGEST_SALT_AT   132u
#define SALT_BYTES       32u
#define DIGEST_ROUNDS_AT 164u
#define SLOTS_AT         208u
#define SLOTS            8u
#define SLOT_BYTES       48u
#define SLOT_ACTIVE      0x00ac71f3u
#define MAX_KEY          64u
#define MAX_STRIPES      65536u
#define MAX_ROUNDS       100000000u /* of PBKDF2: under a minute, ten times what others make */
#define MAX_PASSPHRASE   (64u << 10)

struct qcow2_luks {
    const EVP_CIPHER *cipher; /* [init] NULL: opened without a key, to be examined only */
    uint8_t key[MAX_KEY];     /* [init] */
};

/** What recovering the key needs. */
struct luks_header {
    uint8_t *bytes; /* the header with its key slots; owned */
    size_t size;
    const EVP_CIPHER *cipher;
    const EVP_MD *hash;
    size_t key_bytes;
};

int qcow2_luks_crypt(const struct qcow2_luks *l, uint8_t *buf, size_t size, uint64_t host,
                     bool encrypt)
{
    EVP_CIPHER_CTX *c = l->cipher ? EVP_CIPHER_CTX_new() : NULL;
    bool good = c && EVP_CipherInit_ex(c, l->cipher, NULL, l->key, NULL, encrypt);

    if (!l->cipher)
        return -ENOKEY;
    for (size_t at = 0; good && at < size; at += SECTOR) {
        uint8_t tweak[16] = {0};
        int done;

        store_le64(tweak, (host + at) / SECTOR);
        good = EVP_CipherInit_ex(c, NULL, NULL, NULL, tweak, encrypt) &&
               EVP_CipherUpdate(c, buf + at, &done, buf + at, SECTOR);
    }
    EVP_CIPHER_CTX_free(c);
    return good ? 0 : -EIO;
}

static bool is_name(const uint8_t *field, const char *name)
{
    return !strncmp((const char *)field, name, NAME_BYTES);
}

static int parse(struct luks_header *h, struct error *err)
{
    static const char *const hashes[] = {"sha1", "sha256", "sha512"};
    const uint8_t *p = h->bytes;

    if (h->size < HEADER_BYTES || memcmp(p, "LUKS\xba\xbe", 6) != 0)
        return error_set(err, EINVAL, "its encryption header makes no sense");
    if (load_be16(p + VERSION_AT) != 1)
        return error_set(err, ENOTSUP, "it is encrypted with LUKS of version %u, not 1",
                         load_be16(p + VERSION_AT));
    h->key_bytes = load_be32(p + KEY_BYTES_AT);
    if (is_name(p + CIPHER_AT, "aes") && is_name(p + MODE_AT, "xts-plain64"))
        h->cipher = h->key_bytes == 64   ? EVP_aes_256_xts()
                    : h->key_bytes == 32 ? EVP_aes_128_xts()
                                         : NULL;
    if (!h->cipher)
        return error_set(err, ENOTSUP,
                         "it is encrypted with %.32s-%.32s and a key of %zu bytes: aes-xts-plain64 "
                         "with 32 or 64 is supported",
                         p + CIPHER_AT, p + MODE_AT, h->key_bytes);
    for (size_t i = 0; i < ARRAY_SIZE(hashes); i++) {
        if (is_name(p + HASH_AT, hashes[i]))
            h->hash = EVP_get_digestbyname(hashes[i]);
    }
    if (!h->hash)
        return error_set(err, ENOTSUP, "its encryption uses hash %.32s, which is not supported",
                         p + HASH_AT);
    return 0;
}

static bool derive(const struct luks_header *h, const uint8_t *secret, size_t size,
                   const uint8_t *salt, uint32_t rounds, uint8_t *ret, size_t ret_size)
{
    return rounds && rounds <= MAX_ROUNDS &&
           PKCS5_PBKDF2_HMAC((const char *)secret, (int)size, salt, SALT_BYTES, (int)rounds,
                             h->hash, (int)ret_size, ret);
}

/** Hash each part of @key, of the hash's size, with its number before it. §2.4 */
static bool diffuse(const struct luks_header *h, uint8_t *key)
{
    size_t step = (size_t)EVP_MD_get_size(h->hash);
    uint8_t in[4 + EVP_MAX_MD_SIZE];
    uint8_t out[EVP_MAX_MD_SIZE];
    uint32_t nr = 0;

    for (size_t at = 0; at < h->key_bytes; at += step, nr++) {
        size_t n = MIN(step, h->key_bytes - at);

        store_be32(in, nr);
        memcpy(in + 4, key + at, n);
        if (!EVP_Digest(in, 4 + n, out, NULL, h->hash, NULL))
            return false;
        memcpy(key + at, out, n);
    }
    OPENSSL_cleanse(in, sizeof(in));
    OPENSSL_cleanse(out, sizeof(out));
    return true;
}

/** The key out of its stripes. §2.4 */
static bool merge(const struct luks_header *h, const uint8_t *material, uint32_t stripes,
                  uint8_t *ret)
{
    memset(ret, 0, h->key_bytes);
    for (uint32_t s = 0; s < stripes; s++) {
        for (size_t i = 0; i < h->key_bytes; i++)
            ret[i] ^= material[s * h->key_bytes + i];
        if (s + 1 < stripes && !diffuse(h, ret))
            return false;
    }
    return true;
}

/** Does @secret open key slot @slot? Then the image's key is in @ret. §4 */
static bool open_slot(const struct luks_header *h, const uint8_t *slot, const uint8_t *secret,
                      size_t secret_size, uint8_t *ret)
{
    struct qcow2_luks by_slot = {.cipher = h->cipher};
    uint8_t digest[DIGEST_BYTES];
    uint64_t at = (uint64_t)load_be32(slot + 40) * SECTOR;
    uint32_t stripes = load_be32(slot + 44);
    size_t size = stripes * h->key_bytes;

    if (load_be32(slot) != SLOT_ACTIVE || !stripes || stripes > MAX_STRIPES || at > h->size ||
        align_up(size, SECTOR) > h->size - at)
        return false;
    uint8_t *material = malloc(align_up(size, SECTOR));
    bool good = material && derive(h, secret, secret_size, slot + 8, load_be32(slot + 4),
                                   by_slot.key, h->key_bytes);
    if (good) {
        memcpy(material, h->bytes + at, align_up(size, SECTOR));
        good = !qcow2_luks_crypt(&by_slot, material, align_up(size, SECTOR), 0, false) &&
               merge(h, material, stripes, ret) &&
               derive(h, ret, h->key_bytes, h->bytes + DIGEST_SALT_AT,
                      load_be32(h->bytes + DIGEST_ROUNDS_AT), digest, sizeof(digest)) &&
               !CRYPTO_memcmp(digest, h->bytes + DIGEST_AT, sizeof(digest));
    }
    OPENSSL_cleanse(&by_slot, sizeof(by_slot));
    if (material)
        OPENSSL_cleanse(material, size);
    free(material);
    return good;
}

/** All of file @path, which is the passphrase, also a line's end in it; the caller's. */
static int read_passphrase(const char *path, uint8_t **ret, size_t *ret_size, struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *buf = malloc(MAX_PASSPHRASE + 1);
    size_t size = 0;
    ssize_t n = fd < 0 ? -1 : 1;

    while (buf && n > 0 && size <= MAX_PASSPHRASE) {
        n = read(fd, buf + size, MAX_PASSPHRASE + 1 - size);
        size += n > 0 ? (size_t)n : 0;
    }
    int rc = 0;
    if (!buf)
        rc = error_set(err, ENOMEM, "out of memory");
    else if (n < 0)
        rc = error_set(err, errno, "cannot read key file '%s': %s", path, strerror(errno));
    else if (size > MAX_PASSPHRASE)
        rc = error_set(err, EINVAL, "key file '%s' is larger than %u bytes", path, MAX_PASSPHRASE);
    if (rc) {
        free(buf);
        return rc;
    }
    *ret = buf;
    *ret_size = size;
    return 0;
}

static int unlock(struct luks_header *h, const char *key_file, struct qcow2_luks *l,
                  struct error *err)
{
    uint8_t *secret = NULL;
    size_t size = 0;
    int rc = parse(h, err);

    rc = rc ? rc : read_passphrase(key_file, &secret, &size, err);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < SLOTS && !l->cipher; i++) {
        if (open_slot(h, h->bytes + SLOTS_AT + SLOT_BYTES * (size_t)i, secret, size, l->key))
            l->cipher = h->cipher;
    }
    OPENSSL_cleanse(secret, size);
    free(secret);
    return l->cipher
               ? 0
               : error_set(err, EACCES, "it is encrypted, and '%s' does not hold its passphrase",
                           key_file);
}

int qcow2_luks_open(struct qcow2 *q, const char *key_file, bool to_examine, struct qcow2_luks **ret,
                    struct error *err)
{
    struct luks_header h = {.size = (size_t)q->h.crypt_bytes};
    struct qcow2_luks *l;
    int rc = 0;

    if (!key_file && !to_examine)
        return error_set(err, ENOKEY,
                         "it is encrypted: give a file that holds its passphrase (--key-file, or "
                         "key-file= of a machine's disk)");
    l = calloc(1, sizeof(*l));
    h.bytes = malloc(MAX(h.size, (size_t)1));
    if (!l || !h.bytes)
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc && key_file)
        rc = file_pread(q->file, h.bytes, h.size, q->h.crypt_offset);
    if (!rc && key_file)
        rc = unlock(&h, key_file, l, err);
    free(h.bytes);
    if (rc) {
        qcow2_luks_free(l);
        return error_set(err, -rc, "cannot read its encryption header: %s", strerror(-rc));
    }
    *ret = l;
    return 0;
}

void qcow2_luks_free(struct qcow2_luks *l)
{
    if (l)
        OPENSSL_cleanse(l, sizeof(*l));
    free(l);
}
