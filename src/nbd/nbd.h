/* An NBD server: a disk for other programs, on this host or over the network.
 *
 * Fixed newstyle, structured replies, block status, several connections to one disk; TLS where
 * asked. Spec: the NBD protocol,
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
 *
 * Threads: nbd_server_run() accepts on the caller's thread; every connection has a thread, and more
 * when its client has several requests under way. SIGPIPE must be ignored: OpenSSL writes to
 * sockets whose other end may be gone. */
#ifndef NBD_NBD_H
#define NBD_NBD_H

#include "base/error.h"
#include "base/macros.h"

struct disk;
struct nbd_server;
struct nbd_tls;

#define NBD_MAX_CLIENTS 64
#define NBD_NAME_MAX    255
#define NBD_MAX_BITMAPS 16

struct nbd_config {
    struct disk *disk;       /* borrowed */
    const char *name;        /* of the export; "" is asked for by clients that name none */
    const char *description; /* for people; NULL = none */
    bool readonly;
    bool persistent;      /* go on when the last client has left */
    unsigned max_clients; /* 1 to NBD_MAX_CLIENTS at a time; others wait to be accepted */
    struct nbd_tls *tls;  /* borrowed; NULL = none. With it, nothing is done without TLS. */
    /* Bitmaps that clients may ask for as "qemu:dirty-bitmap:NAME"; borrowed. */
    const char *const *bitmaps;
    unsigned bitmap_count; /* at most NBD_MAX_BITMAPS */
};

/** @config is copied, its own strings too. -EINVAL: a name that is too long, or a bitmap that
 * cannot be read; -ENOENT: there is no such bitmap; -ENOMEM. */
must_check int nbd_server_new(const struct nbd_config *config, struct nbd_server **ret,
                              struct error *err);

/** After nbd_server_run() has returned. Takes NULL. */
void nbd_server_free(struct nbd_server *s);

/** Serve clients of the listening socket @listen_fd (borrowed) until @stop_fd is readable or,
 * unless persistent, the first clients have all left. Connections that are still there are then
 * closed, the requests begun first finished. Does not flush the disk. */
must_check int nbd_server_run(struct nbd_server *s, int listen_fd, int stop_fd, struct error *err);

/** Serve the one client at @fd, which is taken, on this thread until it leaves. */
void nbd_server_serve(struct nbd_server *s, int fd);

/** A listening socket at @path; a socket there that nobody serves is replaced. -EADDRINUSE... */
must_check int nbd_listen_unix(const char *path, int *ret, struct error *err);

/** A listening TCP socket at the numeric address @host (IPv4 or IPv6; NULL = 127.0.0.1). */
must_check int nbd_listen_tcp(const char *host, uint16_t port, int *ret, struct error *err);

/** Certificates for TLS: server-cert.pem and server-key.pem of folder @dir; if ca-cert.pem is there
 * too, clients must have a certificate that it signed. On success *@ret is the caller's. */
must_check int nbd_tls_new(const char *dir, struct nbd_tls **ret, struct error *err);
void nbd_tls_free(struct nbd_tls *tls); /* takes NULL */

#endif
