/* Posada's agent in a guest: what its parts share. Protocol: docs/agent.md.
 *
 * The agent listens, and has a process for every connection (a session), so that what one does or
 * suffers is nothing to the others. A session is one thread. */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include "agent/tree.h"

#include <sys/types.h>

/** What all processes of the agent see. */
struct shared {
    pid_t frozen_by; /* [atomic] the session that has frozen file systems; 0 = none */
};

struct session {
    struct wire wire;
    struct shared *shared;
    const char *allow;  /* names of verbs with commas between; NULL = all */
    int signal_fd;      /* signalfd: SIGCHLD */
    int64_t thaw_at_ns; /* INT64_MAX: nothing is frozen by this session */
    bool thawed_late;   /* by the timeout */
};

/** Serve the connection @fd, which is taken over, to its end. */
void session_run(int fd, struct shared *shared, const char *allow);

/** Verbs: 0 once the answer was made (it is sent by the caller), or -errno with @err set, which
 * becomes the answer. -ECONNRESET: the host is gone. */
int exec_serve(struct session *s, const struct wire_frame *f, struct error *err);
int files_put(struct session *s, const struct wire_frame *f, struct error *err);
int files_get(struct session *s, const struct wire_frame *f, struct error *err);
int info_serve(struct session *s, const struct wire_frame *f, struct error *err);
int freeze_serve(struct session *s, const struct wire_frame *f, struct error *err);
int thaw_serve(struct session *s, const struct wire_frame *f, struct error *err);
int identity_serve(struct session *s, const struct wire_frame *f, struct error *err);
int shutdown_serve(struct session *s, const struct wire_frame *f, struct error *err);
int set_time_serve(struct session *s, const struct wire_frame *f, struct error *err);
int reseed_serve(struct session *s, const struct wire_frame *f, struct error *err);

/** An answer without fields. */
must_check int session_reply(struct session *s);

/** Go before whatever else the guest is busy with, or not any more. Who may not do so goes without.
 */
void hurry(bool on);

/** Thaw what is frozen, on all file systems: how many. */
unsigned thaw_all(void);

/** Who a program runs as. */
struct user {
    char name[64];
    uid_t uid;
    gid_t gid;
    char home[256], shell[256];
    gid_t groups[64];
    size_t group_count;
};

/** Look @name (a name or a number; NULL = the agent's own) up in /etc/passwd and /etc/group. */
must_check int user_find(struct user *u, const char *name, struct error *err);

/** What a request asks to run; strings are the request's. */
struct exec_spec {
    char **argv;         /* NULL-terminated; owned, as env */
    const char *program; /* what is executed; argv[0] may differ */
    char **env;          /* */
    size_t env_count;
    struct user user;
    const char *cwd;
    char login_name[64]; /* argv[0] of a login shell */
    bool tty;
    unsigned short columns, rows;
};

/** Read a request. The caller ends with exec_spec_done(), also on failure. */
must_check int exec_spec_parse(struct exec_spec *e, const struct wire_frame *f, struct error *err);
void exec_spec_done(struct exec_spec *e);

/** Our ends of a program's streams; -1 = none. */
struct child {
    pid_t pid;
    int in_fd, out_fd, err_fd;
    int slave_fd; /* of a terminal: keeps it alive until the program has ended */
};

/** Start it. Errors: execve()'s. */
must_check int child_start(struct child *c, const struct exec_spec *e, struct error *err);

/** Run a program with nothing as its streams: its exit status, or -errno. */
int command_run(const char *const argv[]);
/** The same without waiting for it, in a session of its own. */
void command_start(const char *const argv[]);
/** Is there a program of that name? */
bool command_exists(const char *name);

/** Replace file @path by @text, whole; with @flush it is on the disk then. */
must_check int file_write(const char *path, const char *text, unsigned mode, bool flush,
                          struct error *err);
/** Read the beginning of a small file, without newlines at its end; false: there is none. */
bool file_read(const char *path, char *buf, size_t room);

#endif
