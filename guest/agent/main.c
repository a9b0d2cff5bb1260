/* Posada's agent in a guest: listens for the host, and starts a session for each connection.
 *
 *     posada-agent                 listen on AF_VSOCK, port 1024: for the host alone
 *     posada-agent --unix PATH     listen on a unix socket, for its owner alone
 *     posada-agent --stdio         one session, on the socket that is standard input
 *     ... --allow VERB,VERB...     do nothing but these
 *
 * Invariants:
 *  1. Only the host (CID 2) is served over vsock: programs of the guest could connect through the
 *     loopback transport, and sessions run as root.
 *  2. When a session ends that has frozen file systems, by whatever way, they are thawed.
 * One thread, one process per session. Guest's side of docs/agent.md. */
#include "base/fd.h"
#include "guest_agent.h"

#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <linux/vm_sockets.h>

enum { SESSIONS_MAX = 64 };

struct options {
    const char *unix_path;
    bool stdio;
    const char *allow;
};

static int die(const char *what)
{
    (void)fprintf(stderr, "posada-agent: %s: %s\n", what, strerror(errno));
    return 1;
}

static int listen_vsock(void)
{
    const char *const load[] = {"modprobe", "-q", "vmw_vsock_virtio_transport", NULL};
    struct sockaddr_vm a = {
        .svm_family = AF_VSOCK,
        .svm_port = WIRE_PORT,
        .svm_cid = VMADDR_CID_ANY,
    };

    if (access("/sys/module/vmw_vsock_virtio_transport", F_OK))
        (void)command_run(load); /* it may be built in */
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 64)) ? -1 : fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    (void)umask(0177);
    (void)unlink(path); /* of one that is gone */
    bool failed = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 64);
    (void)umask(022);
    return failed ? -1 : fd;
}

/** Invariant 1. */
static bool is_host(int fd)
{
    struct sockaddr_vm a = {0};
    socklen_t size = sizeof(a);

    if (getpeername(fd, (struct sockaddr *)&a, &size))
        return false;
    return a.svm_family != AF_VSOCK || a.svm_cid == VMADDR_CID_HOST;
}

/** Collect sessions that have ended. */
static void reap(struct shared *shared, unsigned *count)
{
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        (*count)--;
        if (__atomic_load_n(&shared->frozen_by, __ATOMIC_ACQUIRE) == pid) {
            (void)thaw_all();
            __atomic_store_n(&shared->frozen_by, 0, __ATOMIC_RELEASE);
        }
    }
}

static void accept_one(int listener, int signal_fd, struct shared *shared, const char *allow,
                       unsigned *count)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    pid_t pid = is_host(fd) ? fork() : -1;
    if (!pid) {
        fd_close(listener);
        fd_close(signal_fd);
        session_run(fd, shared, allow);
        _exit(0);
    }
    *count += pid > 0;
    fd_close(fd);
}

static int serve(int listener, int signal_fd, struct shared *shared, const char *allow)
{
    unsigned count = 0;

    for (;;) {
        struct signalfd_siginfo info;
        struct pollfd fds[2] = {
            {.fd = signal_fd,                            .events = POLLIN},
            {.fd = count < SESSIONS_MAX ? listener : -1, .events = POLLIN},
        };

        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return die("poll");
        if (fds[0].revents && read(signal_fd, &info, sizeof(info)) > 0)
            reap(shared, &count);
        if (fds[1].revents)
            accept_one(listener, signal_fd, shared, allow, &count);
    }
}

static int usage(FILE *to, int status)
{
    (void)fprintf(to, "Usage: posada-agent [--unix PATH | --stdio] [--allow VERB,VERB...]\n"
                      "Serves the host's Posada from within a guest; by default over vsock.\n");
    return status;
}

/** -1: go on. */
static int parse_options(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        {"allow",      required_argument, NULL, 'a'},
        {"help",        no_argument, NULL, 'h'},
        {"stdio",            no_argument, NULL, 's'},
        {"unix",required_argument, NULL, 'u'},
        {"version",         no_argument, NULL, 'v'},
        {0     },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
        switch (c) {
        case 'a':
            o->allow = optarg;
            break;
        case 'h':
            return usage(stdout, 0);
        case 's':
            o->stdio = true;
            break;
        case 'u':
            o->unix_path = optarg;
            break;
        case 'v':
            return printf("posada-agent %s\n", POSADA_VERSION) < 0;
        default:
            return usage(stderr, 2);
        }
    }
    return optind < argc ? usage(stderr, 2) : -1;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct user self;
    sigset_t set;
    int status = parse_options(&o, argc, argv);

    if (status >= 0)
        return status;
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return die("memory");
    /* Relative paths of the host's begin at home. */
    if (user_find(&self, NULL, NULL) || chdir(self.home))
        (void)!chdir("/");
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    if (o.stdio) {
        session_run(STDIN_FILENO, shared, o.allow);
        return 0;
    }
    int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0)
        return die("signalfd");
    int listener = o.unix_path ? listen_unix(o.unix_path) : listen_vsock();
    if (listener < 0)
        return die(o.unix_path ? o.unix_path : "cannot listen on vsock port 1024");
    hurry(true);
    return serve(listener, signal_fd, shared, o.allow);
}
