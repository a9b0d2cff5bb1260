/* TLS over a connection's socket, by OpenSSL.
 *
 * Invariant: OpenSSL's object is used by one thread at a time, under `lock`; waiting for the socket
 * happens without it, so that one thread may send while another waits to receive.
 *
 * Threads: as stream.h says.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "base/thread.h"
#include "nbd/nbd.h"
#include "nbd/stream.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define SEND_TIMEOUT_MS 60000

struct nbd_tls {
    SSL_CTX *ctx;
};

struct tls_stream {
    struct nbd_stream s;      /* must be first */
    struct nbd_stream *plain; /* [init] owned: its descriptor */
    int fd;                   /* [init] of `plain`, not blocking */
    struct mutex lock;
    SSL *ssl; /* [lock] */
};

static struct tls_stream *tls_of(struct nbd_stream *s)
{
    return (struct tls_stream *)s;
}

static int fail(const char *what, const char *path, struct error *err)
{
    char why[200];

    ERR_error_string_n(ERR_get_error(), why, sizeof(why));
    ERR_clear_error();
    return error_set(err, EINVAL, "%s '%s': %s", what, path, why);
}

/** Load what @dir holds. */
static int load(SSL_CTX *ctx, const char *dir, struct error *err)
{
    char cert[PATH_MAX];
    char key[PATH_MAX];
    char ca[PATH_MAX];

    if (snprintf(cert, sizeof(cert), "%s/server-cert.pem", dir) >= (int)sizeof(cert) ||
        snprintf(key, sizeof(key), "%s/server-key.pem", dir) >= (int)sizeof(key) ||
        snprintf(ca, sizeof(ca), "%s/ca-cert.pem", dir) >= (int)sizeof(ca))
        return error_set(err, ENAMETOOLONG, "the path '%s' is too long", dir);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
        return fail("cannot use the certificate", cert, err);
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        return fail("cannot use the key", key, err);
    if (SSL_CTX_check_private_key(ctx) != 1)
        return fail("the key does not belong to the certificate", cert, err);
    if (access(ca, F_OK))
        return 0;
    if (SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1)
        return fail("cannot use the certificate authority", ca, err);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

int nbd_tls_new(const char *dir, struct nbd_tls **ret, struct error *err)
{
    struct nbd_tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return error_set(err, ENOMEM, "out of memory");
    tls->ctx = SSL_CTX_new(TLS_server_method());
    int rc = tls->ctx ? 0 : error_set(err, ENOMEM, "cannot set up TLS");
    if (!rc && SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION) != 1)
        rc = error_set(err, ENOTSUP, "cannot set up TLS 1.2");
    if (!rc) {
        (void)SSL_CTX_set_mode(tls->ctx,
                               SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        (void)SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION);
        rc = load(tls->ctx, dir, err);
    }
    if (rc) {
        nbd_tls_free(tls);
        return rc;
    }
    *ret = tls;
    return 0;
}

void nbd_tls_free(struct nbd_tls *tls)
{
    if (tls)
        SSL_CTX_free(tls->ctx);
    free(tls);
}

static int wait_for(int fd, short events, int64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left_ms = deadline_ns ? (deadline_ns - host_now_ns() + 999999) / 1000000 : -1;

    if (deadline_ns && left_ms <= 0)
        return -ETIMEDOUT;
    int n = poll(&p, 1, (int)MIN(left_ms, (int64_t)INT_MAX));
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    return n ? 0 : -ETIMEDOUT;
}

/** After a call that returned @n: the poll events to wait for, 0 = the connection's end, or
 * -errno. */
static int wanted(SSL *ssl, int n)
{
    int why = SSL_get_error(ssl, n);

    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ)
        return POLLIN;
    if (why == SSL_ERROR_WANT_WRITE)
        return POLLOUT;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -EPROTO;
}

static ssize_t tls_recv(struct nbd_stream *s, void *buf, size_t size)
{
    struct tls_stream *t = tls_of(s);

    for (;;) {
        mutex_lock(&t->lock);
        int n = SSL_read(t->ssl, buf, (int)MIN(size, (size_t)INT_MAX));
        int events = n > 0 ? 0 : wanted(t->ssl, n);
        mutex_unlock(&t->lock);
        if (n > 0 || events <= 0)
            return n > 0 ? n : events;
        int rc = wait_for(t->fd, (short)events, s->deadline_ns);
        if (rc)
            return rc;
    }
}

static int tls_send(struct nbd_stream *s, const void *buf, size_t size)
{
    struct tls_stream *t = tls_of(s);

    while (size) {
        mutex_lock(&t->lock);
        int n = SSL_write(t->ssl, buf, (int)MIN(size, (size_t)INT_MAX));
        int events = n > 0 ? 0 : wanted(t->ssl, n);
        mutex_unlock(&t->lock);
        if (n > 0) {
            buf = (const char *)buf + n;
            size -= (size_t)n;
            continue;
        }
        if (events <= 0)
            return events ? events : -EPIPE;
        int rc = wait_for(t->fd, (short)events, host_now_ns() + SEND_TIMEOUT_MS * 1000000LL);
        if (rc)
            return rc;
    }
    return 0;
}

static bool tls_has_more(struct nbd_stream *s)
{
    struct tls_stream *t = tls_of(s);

    mutex_lock(&t->lock);
    bool more = SSL_pending(t->ssl) > 0;
    mutex_unlock(&t->lock);
    return more || nbd_has_more(t->plain);
}

static void tls_shutdown(struct nbd_stream *s)
{
    nbd_shutdown(tls_of(s)->plain);
}

static void tls_close(struct nbd_stream *s)
{
    struct tls_stream *t = tls_of(s);

    (void)SSL_shutdown(t->ssl); /* says good-bye if that takes no waiting */
    ERR_clear_error();
    SSL_free(t->ssl);
    nbd_stream_close(t->plain);
    mutex_done(&t->lock);
    free(t);
}

static const struct nbd_stream_ops tls_ops = {
    .recv = tls_recv,
    .send = tls_send,
    .has_more = tls_has_more,
    .shutdown = tls_shutdown,
    .close = tls_close,
};

static int handshake(SSL *ssl, int fd, int64_t deadline_ns)
{
    for (;;) {
        int n = SSL_accept(ssl);
        int events = n == 1 ? 0 : wanted(ssl, n);

        if (n == 1 || events <= 0)
            return n == 1 ? 0 : -EPROTO;
        int rc = wait_for(fd, (short)events, deadline_ns);
        if (rc)
            return rc;
    }
}

int nbd_stream_tls(struct nbd_stream *plain, struct nbd_tls *tls, struct nbd_stream **ret)
{
    int fd = nbd_stream_fd(plain);
    struct tls_stream *t = fd < 0 ? NULL : calloc(1, sizeof(*t));
    SSL *ssl = t ? SSL_new(tls->ctx) : NULL;
    int rc = -ENOMEM;

    if (ssl && SSL_set_fd(ssl, fd) == 1)
        rc = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno : handshake(ssl, fd, plain->deadline_ns);
    if (rc) {
        SSL_free(ssl);
        free(t);
        return rc;
    }
    t->s = (struct nbd_stream){.ops = &tls_ops, .deadline_ns = plain->deadline_ns};
    t->plain = plain;
    t->fd = fd;
    t->ssl = ssl;
    mutex_init(&t->lock);
    *ret = &t->s;
    return 0;
}
