/* A program in a guest on this process's streams. See cli/inside.h.
 *
 * Invariant: signals that are passed on are blocked and read from a signalfd; whoever sends
 * SIGINT or SIGTERM three times means us, not a guest that does not hear. The main thread. */
#include "base/clock.h"
#include "base/fd.h"
#include "cli/inside.h"
#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

enum {
    STATUS_NOT_EXECUTABLE = 126,
    STATUS_NOT_FOUND = 127,
    STATUS_SIGNAL = 128,
    PATIENCE = 3,
    START_MS = 60000, /* a program on a busy guest */
};

struct inside_session {
    struct terminal terminal;
    bool tty; /* ours is the program's */
    int signal_fd;
    int insisted; /* how often we were asked to end */
};

static int passed_on(struct inside_session *s, struct agent *a, int signo)
{
    unsigned columns, rows;

    if (signo == SIGWINCH || signo == SIGCONT) {
        if (signo == SIGCONT)
            terminal_continue(&s->terminal);
        return s->tty && terminal_size(STDOUT_FILENO, &columns, &rows)
                   ? agent_exec_resize(a, columns, rows)
                   : 0;
    }
    if ((signo == SIGINT || signo == SIGTERM) && ++s->insisted == PATIENCE)
        return -ECANCELED;
    return agent_exec_signal(a, signo);
}

static int signal_ready(struct agent *a, void *arg)
{
    struct inside_session *s = arg;
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != sizeof(info))
        return 0;
    return passed_on(s, a, (int)info.ssi_signo);
}

static int watch_signals(struct inside_session *s, struct error *err)
{
    static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,   SIGQUIT,
                                  SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT};
    sigset_t set;

    (void)signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of that write */
    (void)sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        (void)sigaddset(&set, signals[i]);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd < 0 ? error_set(err, errno, "cannot watch signals: %s", strerror(errno))
                            : 0;
}

static int run(struct inside_session *s, struct agent *a, struct agent_exec *e, bool interactive,
               struct agent_exit *ret, struct error *err)
{
    struct agent_streams streams = {
        .in_fd = interactive ? STDIN_FILENO : -1,
        .out_fd = STDOUT_FILENO,
        .err_fd = STDERR_FILENO,
        .event_fd = s->signal_fd,
        .event = signal_ready,
        .arg = s,
    };
    int rc = agent_exec_start(a, e, host_now_ns() + START_MS * 1000000LL, err);

    if (!rc && s->tty && interactive)
        rc = terminal_open(&s->terminal, STDIN_FILENO, err);
    if (!rc)
        rc = agent_exec_run(a, &streams, ret, err);
    terminal_close(&s->terminal);
    return rc;
}

int inside_exec(const struct cmd *cmd, const char *name, int64_t wait_ms, struct agent_exec *e,
                bool interactive)
{
    struct inside_session s = {.signal_fd = -1};
    struct agent_exit x;
    struct error err = {0};
    struct agent *a = NULL;
    bool started = false;

    s.tty = e->tty && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (s.tty)
        (void)terminal_size(STDOUT_FILENO, &e->columns, &e->rows); /* else it has none */
    int rc = inside_connect(name, wait_ms, &a, &err);
    if (!rc)
        rc = watch_signals(&s, &err);
    if (!rc) {
        started = true;
        rc = run(&s, a, e, interactive, &x, &err);
    }
    agent_close(a);
    fd_close(s.signal_fd);
    if (!rc)
        return x.by_signal ? STATUS_SIGNAL + x.value : x.value;
    int status = CLI_ERROR;
    if (started && (rc == -ENOENT || rc == -EACCES))
        status = rc == -ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE;
    return cmd_fail(cmd, status, &err);
}
