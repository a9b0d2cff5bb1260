/* posada disk serve: a disk for other programs, by NBD. The main thread accepts; signals are read
 * from a descriptor. */
#include "base/fd.h"
#include "cli/disk.h"
#include "nbd/nbd.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#define DEFAULT_PORT "10809" /* what IANA gave to NBD */

struct serve_values {
    struct disk_values disk; /* must be first: its rows are used */
    const char *socket, *bind, *tls, *name, *description;
    int64_t port, shared;
    struct opt_list bitmaps;
    bool readonly, snapshot, persistent;
};

static const struct opt_def serve_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "read-only",
                        .short_name = 'r',
                        OPT_INTO_FLAG(struct serve_values,                                  readonly),
                        .group = "Image",
                        .help = "Clients may not write"},
    {.name = "snapshot",
                        .short_name = 's',
                        OPT_INTO_FLAG(struct serve_values,                                                  snapshot),
                        .group = "Image",
                        .help = "What clients write is gone at the end"},
    {.name = "socket",
                        .short_name = 'k',
                        OPT_INTO_STRING(struct serve_values, socket),
                        .arg = "PATH",
                        .group = "Server",
                        .help = "Listen at this Unix socket instead of TCP"},
    {.name = "port",
                        .short_name = 'p',
                        OPT_INTO_INT(struct serve_values,                port),
                        .arg = "N",
                        .def = DEFAULT_PORT,
                        .min = 1,
                        .max = 65535,
                        .group = "Server",
                        .help = "TCP port to listen at"},
    {.name = "shared",
                        .short_name = 'e',
                        OPT_INTO_INT(struct serve_values,                                                         shared),
                        .arg = "N",
                        .def = "16",
                        .min = 1,
                        .max = NBD_MAX_CLIENTS,
                        .group = "Server",
                        .help = "Connections at a time; others wait"},
    {.name = "bind",
                        .short_name = 'b',
                        OPT_INTO_STRING(struct serve_values,                                  bind),
                        .arg = "ADDRESS",
                        .def = "127.0.0.1",
                        .group = "Server",
                        .help = "Numeric address to listen at; with others than this host's own use --tls"},
    {.name = "tls",
                        OPT_INTO_STRING(struct serve_values,                                        tls),
                        .arg = "DIR",
                        .group = "Server",
                        .help =
         "Serve by TLS only, with server-cert.pem and server-key.pem of this folder; with ca-cert.pem, to its clients only"},
    {.name = "name",
                        .short_name = 'x',
                        OPT_INTO_STRING(struct serve_values,      name),
                        .arg = "NAME",
                        .def = "",
                        .group = "Server",
                        .help = "Name of the export, which clients ask for. Default: none"},
    {.name = "description",
                        .short_name = 'D',
                        OPT_INTO_STRING(struct serve_values,                                                  description),
                        .arg = "TEXT",
                        .group = "Server",
                        .help = "Words for people who list the exports"},
    {.name = "bitmap",
                        .short_name = 'B',
                        OPT_INTO_LIST(struct serve_values,                                                       bitmaps),
                        .arg = "NAME",
                        .group = "Server",
                        .help = "Let clients see what this bitmap of the image has recorded, as context "
             "qemu:dirty-bitmap:NAME; several times for several"},
    {.name = "persistent",
                        OPT_INTO_FLAG(struct serve_values,                                 persistent),
                        .group = "Server",
                        .help = "Go on when the last client has left"                                                                                      },
    DISK_ROW_CACHE,
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_QUIET,
    CMD_COMMON_ROWS(struct disk_values),
};

/** @text as a part of a URI. RFC 3986 §2.1. */
static void print_escaped(const char *text)
{
    for (; *text; text++) {
        if (isalnum((unsigned char)*text) || strchr("-._~/", *text))
            (void)putchar(*text);
        else
            (void)printf("%%%02X", (unsigned char)*text);
    }
}

/** The URI that clients use, on standard output: says as well that they may come. */
static void announce(const struct serve_values *v)
{
    const char *scheme = v->tls ? "nbds" : "nbd";
    bool is_v6 = strchr(v->bind, ':');

    if (v->disk.quiet)
        return;
    if (v->socket)
        (void)printf("%s+unix:///", scheme);
    else
        (void)printf("%s://%s%s%s:%d/", scheme, is_v6 ? "[" : "", v->bind, is_v6 ? "]" : "",
                     (int)v->port);
    print_escaped(v->name);
    if (v->socket) {
        (void)printf("?socket=");
        print_escaped(v->socket);
    }
    (void)putchar('\n');
    (void)fflush(stdout); /* whoever waits for it may be a pipe */
}

/** A descriptor that is readable after SIGINT or SIGTERM. */
static int watch_signals(struct error *err)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* a client that goes away is an error of that write */
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    return fd < 0 ? error_set(err, errno, "cannot watch signals: %s", strerror(errno)) : fd;
}

static int serve(const struct serve_values *v, struct disk *d, struct nbd_tls *tls, int stop_fd,
                 struct error *err)
{
    struct nbd_config config = {
        .disk = d,
        .name = v->name,
        .description = v->description,
        .readonly = v->readonly,
        .persistent = v->persistent,
        .max_clients = (unsigned)v->shared,
        .tls = tls,
        .bitmaps = v->bitmaps.v,
        .bitmap_count = (unsigned)v->bitmaps.n,
    };
    struct nbd_server *server = NULL;
    cleanup(fd_closep) int fd = -1;
    int rc = nbd_server_new(&config, &server, err);

    if (!rc)
        rc = v->socket ? nbd_listen_unix(v->socket, &fd, err)
                       : nbd_listen_tcp(v->bind, (uint16_t)v->port, &fd, err);
    if (!rc) {
        announce(v);
        rc = nbd_server_run(server, fd, stop_fd, err);
        if (v->socket)
            (void)unlink(v->socket); /* nobody is served there any more */
    }
    nbd_server_free(server);
    int flushed = disk_flush(d);
    if (flushed && !rc)
        rc = error_set(err, -flushed, "cannot write '%s' back: %s", d->path, strerror(-flushed));
    return rc;
}

static int run_serve(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct serve_values *v = values;
    unsigned flags = (v->readonly ? DISK_READONLY : 0) | (v->snapshot ? DISK_SNAPSHOT : 0);
    struct nbd_tls *tls = NULL;
    struct disk *d = NULL;
    struct error err = {0};
    cleanup(fd_closep) int stop_fd = watch_signals(&err);
    int rc = stop_fd < 0 ? stop_fd : 0;

    if (!rc && v->tls)
        rc = nbd_tls_new(v->tls, &tls, &err);
    if (!rc)
        rc = disk_cli_open(&v->disk, args->v[0], v->disk.format, flags,
                           disk_cli_is_direct(v->disk.cache), &d, &err);
    if (!rc)
        rc = serve(v, d, tls, stop_fd, &err);
    disk_close(d);
    nbd_tls_free(tls);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct cmd_section serve_sections[] = {
    {"Examples", "  posada disk serve --socket /tmp/d.sock disk.qcow2\n"
                 "  nbdinfo 'nbd+unix:///?socket=/tmp/d.sock'\n\n"
                 "  posada disk serve --bind 0.0.0.0 --tls ~/.posada/tls --persistent disk.vmdk\n"
                 "  qemu-img convert 'nbd+unix:///?socket=/tmp/d.sock' copy.raw"},
    {0         },
};

const struct cmd cmd_disk_serve = {
    .path = "disk serve",
    .operands = "FILE",
    .summary = "give a disk to other programs, by NBD",
    .description =
        "Serve a disk in any format by the NBD protocol, which qemu, libnbd and the Linux kernel speak, to "
        "programs on this host (--socket) or in the network (--port, --bind, --tls). Several connections may "
        "use it at once; what one has flushed is safe for all.\n\n"
        "When it is ready it prints the URI for clients. It ends after its first clients have all left, or "
        "with --persistent at SIGTERM or Ctrl-C; requests that were begun are finished.",
    .opts = serve_opts,
    .values_size = sizeof(struct serve_values),
    .sections = serve_sections,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_serve,
};
