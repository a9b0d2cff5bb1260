/* What the host can ask of a guest that runs Posada's agent: run programs, copy files, tell about
 * itself, freeze its file systems, take a new identity. Protocol: docs/agent.md.
 *
 * A struct agent is one connection, used by one thread at a time; a guest serves several at once.
 * What the guest says is not believed: it is bounded, waited for only until a deadline, cleaned of
 * control characters where a person will read it, and never names a file of the host's.
 *
 * Deadlines are CLOCK_MONOTONIC in ns (host_now_ns() + ...). After an error other than one that
 * the guest reports (-EREMOTEIO is among these, its sentence in @err), the connection is to be
 * closed. All functions that take @err set it; -ETIMEDOUT, -ECONNRESET, -EPROTO and -ENOMEM are
 * possible everywhere, -ENOSYS when the guest's agent does not know or does not allow it. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/tree.h"
#include "base/error.h"

struct agent;

/** Connect to the agent behind the sockets in folder @vsock_dir (device/virtio/vsock.h), trying
 * again until @deadline_ns while the guest is not yet listening. On success *@ret is the caller's,
 * for agent_close(). Errors: -ENOENT, -EACCES: no such machine; -ECONNREFUSED: nobody answers. Any
 * thread. */
must_check int agent_connect(const char *vsock_dir, int64_t deadline_ns, struct agent **ret,
                             struct error *err);

/** The same over a connected stream socket @fd, which is taken over in any case. */
must_check int agent_open(int fd, struct agent **ret, struct error *err);

/** Ends the connection, and with it what depends on it: a program that runs gets SIGHUP, frozen
 * file systems are thawed. Takes NULL. */
void agent_close(struct agent *a);

/** For what is built on it: errors are as above. */
struct wire *agent_wire(struct agent *a);

must_check int agent_ping(struct agent *a, int64_t deadline_ns, struct error *err);

enum { AGENT_TEXT_MAX = 128, AGENT_LIST_MAX = 64 };

struct agent_address {
    char interface[AGENT_TEXT_MAX];
    char mac[24];                 /* "" for none */
    char address[AGENT_TEXT_MAX]; /* with the prefix's length: 10.0.2.15/24, fe80::1/64 */
};

struct agent_user {
    char name[AGENT_TEXT_MAX];
    char terminal[AGENT_TEXT_MAX]; /* "" for none */
};

/** All texts are printable and end within their array; "" for what the guest does not know. */
struct agent_info {
    char hostname[AGENT_TEXT_MAX];
    char os_name[AGENT_TEXT_MAX]; /* "Debian GNU/Linux 13 (trixie)" */
    char os_id[AGENT_TEXT_MAX];   /* "debian" */
    char os_version[AGENT_TEXT_MAX];
    char kernel[AGENT_TEXT_MAX]; /* "6.12.48+deb13-riscv64" */
    char machine[AGENT_TEXT_MAX];
    char machine_id[AGENT_TEXT_MAX];
    char boot_id[AGENT_TEXT_MAX];
    char version[AGENT_TEXT_MAX]; /* of the agent */
    int64_t uptime_ms;
    struct agent_address addresses[AGENT_LIST_MAX];
    size_t address_count;
    struct agent_user users[AGENT_LIST_MAX]; /* logged in */
    size_t user_count;
};

must_check int agent_get_info(struct agent *a, int64_t deadline_ns, struct agent_info *ret,
                              struct error *err);

/** What to run. Strings are borrowed during agent_exec_start(). */
struct agent_exec {
    const char *const *argv; /* NULL-terminated; NULL: the user's login shell */
    const char *const *env;  /* NAME=VALUE, added to the user's; NULL-terminated; NULL: none */
    const char *cwd;         /* NULL: the user's home */
    const char *user;        /* name or number; NULL: who the agent runs as, root */
    bool tty;
    unsigned columns, rows; /* of the terminal; 0 = unknown */
};

struct agent_exit {
    bool by_signal;
    int value; /* exit status, or the signal's number */
};

/** Start a program. -ENOENT, -EACCES: it cannot be executed; -EINVAL: no such user or folder. */
must_check int agent_exec_start(struct agent *a, const struct agent_exec *e, int64_t deadline_ns,
                                struct error *err);

/** Descriptors of the host's that the program's streams are copied from and to; borrowed. */
struct agent_streams {
    int in_fd;    /* -1: the program's standard input is at its end */
    int out_fd;   /* -1: dropped */
    int err_fd;   /* likewise; with a terminal, all output is in out_fd */
    int event_fd; /* -1, or: when readable, event() is called, which may call agent_exec_signal()
                     and agent_exec_resize(), and takes what is readable; what it returns other
                     than 0, an -errno, ends agent_exec_run() */
    int (*event)(struct agent *a, void *arg);
    void *arg;
};

/** Copy the streams of the program that was started until it has ended and all that it wrote is
 * written. What out_fd and err_fd do not take is waited for without limit; when they are broken,
 * the program is told by SIGPIPE. The caller ignores its own. -ECANCELED: event() wanted it. */
must_check int agent_exec_run(struct agent *a, const struct agent_streams *s,
                              struct agent_exit *ret, struct error *err);
must_check int agent_exec_signal(struct agent *a, int signo);
must_check int agent_exec_resize(struct agent *a, unsigned columns, unsigned rows);

/** Copy the file or folder @path of the host to @guest_path: into it if it is a folder, else as it.
 * Relative paths begin in root's home. -EREMOTEIO and others with the guest's sentence. */
must_check int agent_put(struct agent *a, const char *path, const char *guest_path,
                         const struct tree_options *o, struct tree_result *ret, struct error *err);
/** The other way. Whatever the guest sends stays within @path. */
must_check int agent_get(struct agent *a, const char *guest_path, const char *path,
                         const struct tree_options *o, struct tree_result *ret, struct error *err);

enum agent_power { AGENT_POWER_OFF, AGENT_REBOOT };

/** Have the guest shut down; returns when that has begun. @force: at once, after a sync. */
must_check int agent_shutdown(struct agent *a, enum agent_power how, bool force,
                              int64_t deadline_ns, struct error *err);

/** Freeze all file systems that can be, until agent_thaw(), the end of the connection, or
 * @timeout_ms (1 to 600000), whichever is first. *@ret_count is how many. -EBUSY: they are
 * frozen already. */
must_check int agent_freeze(struct agent *a, int64_t timeout_ms, int64_t deadline_ns,
                            unsigned *ret_count, struct error *err);
/** -ETIME: the timeout has thawed them before, so what was done meanwhile is not consistent. */
must_check int agent_thaw(struct agent *a, int64_t deadline_ns, struct error *err);

/** Set the guest's clock, ns since 1970. */
must_check int agent_set_time(struct agent *a, int64_t time_ns, int64_t deadline_ns,
                              struct error *err);

/** What a clone must have anew. NULL, false, 0: leave it. */
struct agent_identity {
    const char *hostname;
    const char *machine_id; /* 32 lower case hexadecimal digits; "" = random ones */
    bool ssh_keys;          /* make new host keys, if there are any */
    struct {
        const char *from, *to; /* "52:54:00:12:34:56" */
    } macs[8];
    size_t mac_count; /* the interface's address changes, and it asks for a lease again */
    bool later;       /* the network, and that files are on disk, half a second after the answer */
};

must_check int agent_set_identity(struct agent *a, const struct agent_identity *id,
                                  int64_t deadline_ns, struct error *err);

/** Mix @size (at most 4096) random bytes into the guest's generator and have it use them. */
must_check int agent_reseed(struct agent *a, const void *bytes, size_t size, int64_t deadline_ns,
                            struct error *err);

#endif
