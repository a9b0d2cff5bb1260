/* One command in the guest. See cli/command.h, docs/guest-command.md.
 *
 * Invariants: (1) every descriptor in the vm's config is ours and outlives the vm; (2) the feeder
 * alone writes to cmd_write and closes it; (3) a pipe that the machine writes to and we read only
 * later (status) is small enough for the kernel to hold what the protocol allows. Threads: the main
 * thread; the feeder copies script and stdin, and ends at their end or when the pipe breaks. */
#include "cli/command.h"

#include "base/error.h"
#include "base/fd.h"
#include "cli/run.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum { CONSOLE_TAIL = 4096, TAIL_LINES = 20, PIPE_READ = 0, PIPE_WRITE = 1 };

struct command {
    char *script; /* [init] encoded */
    size_t script_size;
    int cmd[2];     /* to the guest; [PIPE_WRITE] is the feeder's */
    int status[2];  /* from the guest */
    int console[2]; /* from the guest */
    int cancel_fd;  /* eventfd: tells the feeder to end */
    pthread_t feeder;
    bool feeder_runs;
    bool has_status;
    int exit_status;
    char tail[CONSOLE_TAIL]; /* the last of what the console said */
    size_t tail_size;
};

/** Wait until @fd is ready for @events; false when told to end. */
static bool wait_ready(const struct command *c, int fd, short events)
{
    struct pollfd fds[] = {
        {.fd = fd,           .events = events},
        {.fd = c->cancel_fd, .events = POLLIN}
    };

    while (poll(fds, 2, -1) < 0) {
        if (errno != EINTR)
            return false;
    }
    return !fds[1].revents;
}

static bool feed(const struct command *c, const char *data, size_t size)
{
    while (size) {
        if (!wait_ready(c, c->cmd[PIPE_WRITE], POLLOUT))
            return false;
        ssize_t n = write(c->cmd[PIPE_WRITE], data, size);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return false;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return true;
}

static void *feeder_main(void *arg)
{
    struct command *c = arg;
    char buf[65536];
    bool good = feed(c, c->script, c->script_size);

    while (good && wait_ready(c, STDIN_FILENO, POLLIN)) {
        ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            break;
        good = feed(c, buf, (size_t)n);
    }
    fd_close(fd_take(&c->cmd[PIPE_WRITE])); /* end of file for the command */
    return NULL;
}

static int open_pipes(struct command *c, struct error *err)
{
    c->cancel_fd = eventfd(0, EFD_CLOEXEC);
    if (c->cancel_fd < 0 || pipe2(c->cmd, O_CLOEXEC) || pipe2(c->status, O_CLOEXEC) ||
        pipe2(c->console, O_CLOEXEC))
        return error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    /* we poll these; O_NONBLOCK is of our ends only */
    if (fcntl(c->cmd[PIPE_WRITE], F_SETFL, O_NONBLOCK) ||
        fcntl(c->status[PIPE_READ], F_SETFL, O_NONBLOCK) ||
        fcntl(c->console[PIPE_READ], F_SETFL, O_NONBLOCK))
        return error_set(err, errno, "cannot set up a pipe: %s", strerror(errno));
    return 0;
}

static void add_ports(struct vm_config *config, const struct command *c)
{
    const struct vm_port_config ports[] = {
        {.name = "posada.cmd",    .in_fd = c->cmd[PIPE_READ], .out_fd = -1                   },
        {.name = "posada.out",    .in_fd = -1,                .out_fd = STDOUT_FILENO        },
        {.name = "posada.err",    .in_fd = -1,                .out_fd = STDERR_FILENO        },
        {.name = "posada.status", .in_fd = -1,                .out_fd = c->status[PIPE_WRITE]},
    };

    memcpy(config->ports, ports, sizeof(ports));
    config->port_count = ARRAY_SIZE(ports);
    config->console_out = c->console[PIPE_WRITE];
}

int command_new(struct run *run, struct command **ret, struct error *err)
{
    struct command *c = calloc(1, sizeof(*c));
    cleanup(freep) const char **env = calloc(run->v->env.n + 1, sizeof(*env));

    if (!c || !env) {
        free(c);
        return error_set(err, ENOMEM, "out of memory");
    }
    for (int i = 0; i < 2; i++)
        c->cmd[i] = c->status[i] = c->console[i] = -1;
    c->cancel_fd = -1;
    if (run->v->env.n)
        memcpy(env, run->v->env.v, run->v->env.n * sizeof(*env));
    int r = image_command_encode((const char *const *)run->args->rest, env, run->v->workdir,
                                 &c->script, &c->script_size, err);
    if (!r)
        r = open_pipes(c, err);
    if (!r) {
        r = pthread_create(&c->feeder, NULL, feeder_main, c);
        c->feeder_runs = !r;
        r = r ? error_set(err, r, "cannot start a thread: %s", strerror(r)) : 0;
    }
    if (r) {
        command_free(c);
        return r;
    }
    add_ports(&run->config, c);
    *ret = c;
    return 0;
}

int command_console_fd(const struct command *c)
{
    return c ? c->console[PIPE_READ] : -1;
}

void command_read_console(struct command *c)
{
    char buf[CONSOLE_TAIL];
    ssize_t n;

    while (c && (n = read(c->console[PIPE_READ], buf, sizeof(buf))) > 0) {
        size_t keep = MIN(c->tail_size, sizeof(c->tail) - (size_t)n);
        memmove(c->tail, c->tail + c->tail_size - keep, keep);
        memcpy(c->tail + keep, buf, (size_t)n);
        c->tail_size = keep + (size_t)n;
    }
}

/** "<decimal>\n", 0 to 255. */
static bool parse_status(const char *text, int *ret)
{
    int64_t v;
    char digits[8];
    const char *end = strchr(text, '\n');

    if (!end || end == text || end - text >= (ptrdiff_t)sizeof(digits))
        return false;
    memcpy(digits, text, (size_t)(end - text));
    digits[end - text] = '\0';
    if (opt_parse_int(digits, &v) || v < 0 || v > 255)
        return false;
    *ret = (int)v;
    return true;
}

static void stop_feeder(struct command *c)
{
    uint64_t one = 1;

    if (!c->feeder_runs)
        return;
    if (write(c->cancel_fd, &one, sizeof(one)) < 0) {
        /* an eventfd that is ours takes one */
    }
    (void)pthread_join(c->feeder, NULL);
    c->feeder_runs = false;
}

void command_finish(struct command *c)
{
    char text[32] = "";

    if (!c)
        return;
    stop_feeder(c);
    command_read_console(c);
    if (read(c->status[PIPE_READ], text, sizeof(text) - 1) > 0)
        c->has_status = parse_status(text, &c->exit_status);
}

bool command_get_status(const struct command *c, int *ret)
{
    if (c && c->has_status)
        *ret = c->exit_status;
    return c && c->has_status;
}

void command_show_console(struct command *c)
{
    if (!c || !c->tail_size)
        return;
    const char *end = c->tail + c->tail_size;
    const char *p = end;
    for (int lines = 0; p > c->tail; p--) {
        if (p[-1] == '\n' && p != end && ++lines == TAIL_LINES)
            break;
    }
    (void)fprintf(stderr, "the guest's console ended with:\n");
    for (; p < end; p++) {
        /* no control characters of the guest's on the user's terminal */
        if (*p == '\n' || *p == '\t' || (unsigned char)*p >= ' ')
            (void)fputc(*p, stderr);
    }
    (void)fputc('\n', stderr);
}

void command_free(struct command *c)
{
    if (!c)
        return;
    stop_feeder(c);
    for (int i = 0; i < 2; i++) {
        fd_close(c->cmd[i]);
        fd_close(c->status[i]);
        fd_close(c->console[i]);
    }
    fd_close(c->cancel_fd);
    free(c->script);
    free(c);
}
