/* posada console: the terminal of an instance that runs in the background.
 *
 * The connection becomes the guest's console in both directions; a second one carries the size of
 * the window and what the menu asks for. The terminal is raw only between terminal_open() and
 * terminal_close(). One thread. */
#include "base/error.h"
#include "base/fd.h"
#include "cli/remote.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

enum { PIECE = 4096, POLL_MS = 60000 };

struct console_values {
    struct cmd_common common;
};

struct console {
    const char *name;
    int fd;        /* the guest's console */
    int signal_fd; /* window size, continuation, ends */
    struct terminal terminal;
    bool is_tty, in_menu, done, stdin_ended;
};

static void say(const struct console *c, const char *text)
{
    (void)fprintf(stderr, "%sposada: %s%s", c->terminal.is_raw ? "\r\n" : "", text,
                  c->terminal.is_raw ? "\r\n" : "\n");
}

/** One call, whose failure is only told of. */
static void ask(const struct console *c, const char *call, json_t *args)
{
    struct error err = {0};

    if (remote_call(c->name, call, args, REMOTE_TIMEOUT_MS, NULL, &err))
        say(c, error_text(&err));
}

static void resize(const struct console *c)
{
    unsigned columns, rows;

    if (terminal_size(STDOUT_FILENO, &columns, &rows))
        ask(c, "resize", json_pack("{s:i, s:i}", "columns", (int)columns, "rows", (int)rows));
}

/** One key of the menu. True: Ctrl-] is for the guest after all. */
static bool menu_key(struct console *c, char key)
{
    c->in_menu = false;
    switch (key) {
    case 'd':
    case 'q':
        c->done = true;
        break;
    case 'k':
        ask(c, "stop", json_pack("{s:i, s:b}", "timeout_ms", 0, "force", 1));
        break;
    case 'r':
        ask(c, "reset", NULL);
        break;
    case 'p':
        ask(c, "pause", NULL);
        say(c, "paused; Ctrl-] c lets it go on");
        break;
    case 'c':
        ask(c, "resume", NULL);
        break;
    case ']':
    case TERMINAL_ESCAPE:
        return true;
    default:
        say(c, "back in the guest");
    }
    return false;
}

/** Take what is for the menu out of @n bytes at @buf; returns how many are left. */
static size_t filter(struct console *c, char *buf, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n && !c->done; i++) {
        if (c->in_menu) {
            if (menu_key(c, buf[i]))
                buf[kept++] = TERMINAL_ESCAPE;
        } else if (buf[i] == TERMINAL_ESCAPE) {
            c->in_menu = true;
            say(c, "d detach   k stop at once   r reset   p pause   c continue   ] send Ctrl-]   "
                   "any other key: back");
        } else {
            buf[kept++] = buf[i];
        }
    }
    return kept;
}

static void read_keys(struct console *c)
{
    char buf[PIECE];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        c->stdin_ended = true;
        (void)shutdown(c->fd, SHUT_WR);
        return;
    }
    size_t kept = c->is_tty ? filter(c, buf, (size_t)n) : (size_t)n;
    if (fd_write_all(c->fd, buf, kept))
        c->done = true; /* it has ended */
}

static void show_output(struct console *c)
{
    char buf[PIECE];
    ssize_t n = read(c->fd, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0 || fd_write_all(STDOUT_FILENO, buf, (size_t)n)) {
        c->done = true;
        if (c->is_tty)
            say(c, "the instance has stopped");
    }
}

static void serve_signal(struct console *c)
{
    struct signalfd_siginfo info;

    if (read(c->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGCONT)
        terminal_continue(&c->terminal);
    if (info.ssi_signo == SIGCONT || info.ssi_signo == SIGWINCH)
        resize(c);
    else
        c->done = true;
}

static int open_signals(struct console *c, struct error *err)
{
    static const int served[] = {SIGWINCH, SIGCONT, SIGTERM, SIGHUP, SIGINT};
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(served); i++)
        (void)sigaddset(&set, served[i]);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    return c->signal_fd < 0 ? error_set(err, errno, "cannot watch signals: %s", strerror(errno))
                            : 0;
}

/** Until the user detaches or the instance ends. */
static void serve(struct console *c)
{
    while (!c->done) {
        struct pollfd p[] = {
            {.fd = c->fd,                              .events = POLLIN},
            {.fd = c->signal_fd,                       .events = POLLIN},
            {.fd = c->stdin_ended ? -1 : STDIN_FILENO, .events = POLLIN},
        };
        if (poll(p, ARRAY_SIZE(p), POLL_MS) < 0 && errno != EINTR)
            return;
        if (p[0].revents)
            show_output(c);
        if (p[1].revents)
            serve_signal(c);
        if (p[2].revents && !c->done)
            read_keys(c);
    }
}

static int attach(struct console *c, struct error *err)
{
    struct api_client *client;
    int r = remote_open(c->name, &client, err);

    if (r)
        return r;
    r = api_client_call(client, "console", NULL, INT64_MAX, NULL, NULL, NULL, err);
    if (r) {
        api_client_close(client);
        return r;
    }
    c->fd = api_client_take_fd(client);
    return 0;
}

static int run_console(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct console c = {.name = args->v[0], .fd = -1, .signal_fd = -1};
    struct error err = {0};
    int r = open_signals(&c, &err);

    c.is_tty = isatty(STDIN_FILENO) == 1;
    if (!r)
        r = attach(&c, &err);
    if (!r && c.is_tty) {
        (void)fprintf(stderr, "posada: the console of '%s'; Ctrl-] leads out of it\n", c.name);
        r = terminal_open(&c.terminal, STDIN_FILENO, &err);
    }
    if (!r) {
        resize(&c);
        serve(&c);
    }
    terminal_close(&c.terminal);
    fd_close(c.fd);
    fd_close(c.signal_fd);
    return r ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def console_opts[] = {
    CMD_COMMON_ROWS(struct console_values),
};

const struct cmd cmd_console = {
    .path = "console",
    .operands = "NAME",
    .summary = "attach this terminal to an instance's console",
    .description =
        "Attach this terminal to the console of a running instance, Ctrl-C included. Ctrl-] leads out of it: then d "
        "detaches (the instance runs on), k stops it at once, r resets it, p pauses it, c lets it go on, ] sends "
        "Ctrl-] itself. Several terminals can be attached; what was said before is in 'posada logs'.\n\n"
        "Input that is not a terminal is typed into the console; after its end, output goes on until the instance "
        "stops.",
    .opts = console_opts,
    .values_size = sizeof(struct console_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_console,
};
