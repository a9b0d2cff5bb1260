/* Raw mode and its guard. See cli/terminal.h.
 *
 * Invariant: while is_raw, the guard holds a copy of the saved mode and one end of a pipe whose
 * other end only this process holds: however this process ends, the guard reads end-of-file. The
 * main thread. */
#include "cli/terminal.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/** Is the terminal still in the mode that we set? Compared by what raw mode changes. */
static bool still_raw(int fd, const struct termios *raw)
{
    struct termios now;

    return !tcgetattr(fd, &now) && now.c_lflag == raw->c_lflag && now.c_iflag == raw->c_iflag &&
           now.c_oflag == raw->c_oflag;
}

/** The guard's life. Only async-signal-safe calls: other threads may have existed at the fork. */
_Noreturn static void guard_run(const struct terminal *t, int pipe_fd)
{
    sigset_t all;
    char byte;
    ssize_t n;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all,
                      NULL); /* SIGTTOU too: we may be in the background by then */
    (void)prctl(PR_SET_NAME, "posada-tty", 0, 0, 0);
    do
        n = read(pipe_fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 0 && still_raw(t->fd, &t->raw))
        (void)tcsetattr(t->fd, TCSANOW, &t->saved);
    _exit(0);
}

/** Start the guard; -errno. */
static int guard_start(struct terminal *t)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC))
        return -errno;
    t->guard = fork();
    if (t->guard < 0) {
        int r = -errno;
        fd_close(fds[0]);
        fd_close(fds[1]);
        return r;
    }
    if (!t->guard) {
        /* keep nothing of the parent's open (ports, locks, pipes) but the terminal and the pipe */
        int tty = fcntl(t->fd, F_DUPFD_CLOEXEC, 3);
        int end = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
        (void)dup2(tty, 0);
        (void)dup2(end, 1);
        (void)close_range(2, ~0U, 0);
        t->fd = 0;
        guard_run(t, 1);
    }
    fd_close(fds[0]);
    t->guard_fd = fds[1];
    return 0;
}

int terminal_open(struct terminal *t, int fd, struct error *err)
{
    *t = (struct terminal){.fd = fd, .guard_fd = -1};
    if (tcgetattr(fd, &t->saved))
        return error_set(err, errno, "cannot read the terminal's mode: %s", strerror(errno));
    t->raw = t->saved;
    cfmakeraw(&t->raw);
    int r = guard_start(t);
    if (r)
        return error_set(err, -r, "cannot start the terminal's guard: %s", strerror(-r));
    t->is_raw = true;
    if (tcsetattr(fd, TCSADRAIN, &t->raw)) {
        r = error_set(err, errno, "cannot set the terminal's mode: %s", strerror(errno));
        terminal_close(t);
        return r;
    }
    return 0;
}

void terminal_close(struct terminal *t)
{
    if (!t->is_raw)
        return;
    t->is_raw = false;
    (void)tcsetattr(t->fd, TCSADRAIN,
                    &t->saved); /* the terminal may have gone away: nothing to do then */
    if (write(t->guard_fd, "x", 1) < 0) {
        /* the guard is gone: then it has nothing to do either */
    }
    fd_close(fd_take(&t->guard_fd));
    (void)waitpid(t->guard, NULL, 0);
}

void terminal_continue(struct terminal *t)
{
    if (t->is_raw)
        (void)tcsetattr(t->fd, TCSADRAIN,
                        &t->raw); /* in the background it fails: SIGCONT comes again */
}

bool terminal_size(int fd, unsigned *ret_columns, unsigned *ret_rows)
{
    struct winsize ws;

    if (ioctl(fd, TIOCGWINSZ, &ws) || !ws.ws_col || !ws.ws_row)
        return false;
    *ret_columns = ws.ws_col;
    *ret_rows = ws.ws_row;
    return true;
}
