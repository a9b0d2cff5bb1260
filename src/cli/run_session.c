/* The machine from start to exit status, with the terminal, signals and --timeout.
 *
 * Invariants: (1) signals that we serve are blocked in every thread before any thread starts, and
 * read from one signalfd; (2) the terminal is raw only between terminal_open() and
 * terminal_close(), and its guard watches that; (3) stdin is read only while nothing read before
 * waits for room in the guest. Threads: the main thread polls; the waiter sits in vm_wait() and
 * signals stop_fd. */
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/session.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#define NS_PER_MS 1000000LL

enum { SIGNAL_GRACE_MS = 3000, INPUT_RETRY_MS = 10, STATUS_SIGNAL = 128 };

void session_request_stop(struct session *s, enum session_end why, int grace_ms)
{
    if (s->end == SESSION_GUEST)
        s->end = why;
    int64_t now = host_now_ns();
    if (grace_ms && session_ask_power_off(s, now))
        s->kill_at_ns = MIN(s->kill_at_ns, now + grace_ms * NS_PER_MS);
    else
        vm_stop(s->vm);
}

static void *waiter_main(void *arg)
{
    struct session *s = arg;
    uint64_t one = 1;

    if (vm_wait(s->vm, INT64_MAX, &s->result))
        s->result.reason = VM_STOP_ERROR;
    if (write(s->stop_fd, &one, sizeof(one)) < 0) {
        /* an eventfd that is ours takes one */
    }
    return NULL;
}

static void resize(const struct session *s)
{
    unsigned columns;
    unsigned rows;

    if (terminal_size(STDOUT_FILENO, &columns, &rows))
        vm_console_resize(s->vm, columns, rows);
}

static void serve_signal(struct session *s)
{
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    int signo = (int)info.ssi_signo;
    switch (signo) {
    case SIGWINCH:
        resize(s);
        return;
    case SIGCONT:
        terminal_continue(&s->terminal);
        resize(s);
        return;
    default:
        /* the first SIGTERM lets the guest sync its disks; Ctrl-C and a second signal do not wait
         */
        s->signo = s->signo ? s->signo : signo;
        session_request_stop(s, SESSION_SIGNAL,
                             signo == SIGINT || s->end != SESSION_GUEST ? 0 : SIGNAL_GRACE_MS);
    }
}

static int block_signals(struct session *s, struct error *err)
{
    static const int served[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT};
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(served); i++)
        (void)sigaddset(&set, served[i]);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of that write */
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (s->signal_fd < 0 || s->stop_fd < 0)
        return error_set(err, errno, "cannot watch signals: %s", strerror(errno));
    return 0;
}

/** Milliseconds until the next thing to do by the clock; -1 = none. */
static int next_timeout(const struct session *s, int64_t now_ns)
{
    int64_t at = MIN(s->deadline_ns, s->kill_at_ns);

    at = MIN(at, s->eof_at_ns);
    at = MIN(at, s->power_at_ns);
    int64_t ms = at == INT64_MAX ? INT32_MAX : (at - now_ns) / NS_PER_MS + 1;

    if (s->input_size)
        ms = MIN(ms, (int64_t)INPUT_RETRY_MS);
    return ms >= INT32_MAX ? -1 : (int)MAX(ms, (int64_t)0);
}

static void serve_clock(struct session *s, int64_t now_ns)
{
    if (now_ns >= s->kill_at_ns) {
        s->kill_at_ns = INT64_MAX;
        vm_stop(s->vm);
    }
    if (now_ns >= s->deadline_ns) {
        s->deadline_ns = INT64_MAX;
        session_request_stop(s, SESSION_TIMEOUT, 0);
    }
    session_type_eof(s, now_ns);
    session_type_power_off(s, now_ns);
}

static bool wants_input(const struct session *s)
{
    return s->reads_stdin && (s->stdin_is_tty || !s->input_size);
}

/** Until the machine has stopped. */
static void serve(struct session *s)
{
    enum { STOP, SIGNALS, CONSOLE, INPUT, COUNT };

    for (;;) {
        struct pollfd fds[COUNT] = {
            [STOP] = {.fd = s->stop_fd,                          .events = POLLIN},
            [SIGNALS] = {.fd = s->signal_fd,                        .events = POLLIN},
            [CONSOLE] = {.fd = command_console_fd(s->run->command), .events = POLLIN},
            [INPUT] = {.fd = wants_input(s) ? STDIN_FILENO : -1,  .events = POLLIN},
        };
        int n = poll(fds, COUNT, next_timeout(s, host_now_ns()));
        if (n < 0 && errno != EINTR)
            session_request_stop(s, SESSION_USER, 0);
        if (n > 0 && fds[CONSOLE].revents)
            command_read_console(s->run->command);
        if (n > 0 && fds[STOP].revents)
            return;
        if (n > 0 && fds[SIGNALS].revents)
            serve_signal(s);
        serve_clock(s, host_now_ns());
        if (s->input_size)
            (void)session_push_input(s); /* else again after INPUT_RETRY_MS */
        if (n > 0 && fds[INPUT].revents)
            session_read_input(s);
    }
}

/** For the monitor, which makes the machine: what only a run has. */
static void adjust(void *arg, struct vm_config *config)
{
    struct run *run = arg;

    run_adjust(run, config);
    run->config = *config;
}

/** Of an instance, a monitor owns the machine; else we do. */
static int make_machine(struct session *s, struct error *err)
{
    struct run *run = s->run;
    const struct monitor_options options = {.config = &run->guest,
                                            .terminal_fd = run->config.console_out,
                                            .adjust = adjust,
                                            .arg = run};

    if (run->instance) {
        int r = monitor_new(run->instance, &options, &s->monitor, err);
        s->vm = r ? NULL : monitor_hold(s->monitor);
        return r;
    }
    struct vm_config *c = &run->machine.config;
    c->console_out = run->config.console_out;
    run_adjust(run, c);
    run->config = *c;
    return vm_new(&run->config, &s->vm, err);
}

static int start(struct session *s, struct error *err)
{
    struct run *run = s->run;
    int r = block_signals(s, err);

    if (r)
        return r;
    run->config.console_out = STDOUT_FILENO;
    if (run_has_command(run)) {
        r = command_new(run, &run->command, err);
        if (r)
            return r;
    } else {
        s->reads_stdin = true;
        s->stdin_is_tty = isatty(STDIN_FILENO) == 1;
    }
    r = make_machine(s, err);
    if (r)
        return r;
    if (s->stdin_is_tty && (r = terminal_open(&s->terminal, STDIN_FILENO, err)))
        return r;
    if (s->stdin_is_tty && isatty(STDERR_FILENO) == 1)
        log_set_fd(STDERR_FILENO, true);
    resize(s);
    if (run->v->timeout_ms)
        s->deadline_ns = host_now_ns() + run->v->timeout_ms * NS_PER_MS;
    r = s->monitor ? monitor_start(s->monitor, err) : vm_start(s->vm, err);
    if (r)
        return r;
    if (run->instance)
        instance_unlock(run->instance);
    r = pthread_create(&s->waiter, NULL, waiter_main, s);
    return r ? error_set(err, r, "cannot start a thread: %s", strerror(r)) : 0;
}

/** Say why it ended, unless that is plain; the exit status. */
static int conclude(struct session *s)
{
    struct run *run = s->run;
    struct error err = {0};
    char limit[32];
    int status;

    switch (s->end) {
    case SESSION_TIMEOUT:
        (void)snprintf(limit, sizeof(limit), "%g", (double)run->v->timeout_ms / 1000);
        (void)error_set(&err, ETIMEDOUT, "stopped after the timeout of %s seconds", limit);
        command_show_console(run->command);
        return cmd_fail(run->cmd, CLI_TIMEOUT, &err);
    case SESSION_SIGNAL:
        return STATUS_SIGNAL + s->signo;
    case SESSION_USER:
    case SESSION_GUEST:
        break;
    }
    switch (s->result.reason) {
    case VM_STOP_ERROR:
        command_show_console(run->command);
        return cmd_fail(run->cmd, CLI_ERROR, &s->result.error);
    case VM_STOP_POWEROFF:
    case VM_STOP_REQUEST:
    case VM_STOP_PANIC:
        break;
    }
    if (run->command && s->end == SESSION_GUEST) {
        if (command_get_status(run->command, &status))
            return status;
        command_show_console(run->command);
        (void)error_set(&err, EIO, "the guest stopped before it had run the command");
        return cmd_fail(run->cmd, CLI_ERROR, &err);
    }
    return s->result.status & 0xff;
}

static const char *reason_name(const struct session *s)
{
    static const char *const ends[] = {
        [SESSION_USER] = "stopped", [SESSION_TIMEOUT] = "timeout", [SESSION_SIGNAL] = "signal"};
    static const char *const reasons[] = {[VM_STOP_POWEROFF] = "poweroff",
                                          [VM_STOP_REQUEST] = "stopped",
                                          [VM_STOP_PANIC] = "panic",
                                          [VM_STOP_ERROR] = "error"};

    if (s->end != SESSION_GUEST && s->result.reason == VM_STOP_REQUEST)
        return ends[s->end];
    return reasons[s->result.reason];
}

/* Rows of name and value, in units that people read. */
static void print_stats(struct vm *vm)
{
    struct counter rows[VM_MAX_COUNTERS];
    size_t count = vm_counters(vm, rows, VM_MAX_COUNTERS);

    for (size_t i = 0; i < count; i++) {
        const struct counter *c = &rows[i];

        switch (c->unit) {
        case COUNTER_NUMBER:
            (void)fprintf(stderr, "%-20s %16" PRIu64 "\n", c->name, c->value);
            break;
        case COUNTER_BYTES:
            (void)fprintf(stderr, "%-20s %12.1f KiB\n", c->name, (double)c->value / 1024);
            break;
        case COUNTER_NS:
            (void)fprintf(stderr, "%-20s %14.3f s\n", c->name, (double)c->value / 1e9);
            break;
        }
    }
}

/* Numbers, bytes and nanoseconds, as the names say. */
static json_t *stats_json(struct vm *vm)
{
    static const char *const suffixes[] = {
        [COUNTER_NUMBER] = "", [COUNTER_BYTES] = "_bytes", [COUNTER_NS] = "_ns"};
    struct counter rows[VM_MAX_COUNTERS];
    size_t count = vm_counters(vm, rows, VM_MAX_COUNTERS);
    json_t *j = json_object();

    for (size_t i = 0; i < count; i++) {
        char name[64];

        (void)snprintf(name, sizeof(name), "%s%s", rows[i].name, suffixes[rows[i].unit]);
        (void)json_object_set_new(j, name, json_integer((json_int_t)rows[i].value));
    }
    return j;
}

static void print_json(const struct session *s, int status)
{
    const struct run *run = s->run;
    const struct vm_result *r = &s->result;
    json_t *j = json_pack(
        "{s:s, s:s?, s:s, s:s, s:i, s:f, s:f, s:I, s:I}", "name", run->config.name, "image",
        run->args->n ? run->args->v[0] : NULL, "engine", run->guest.engine, "reason",
        reason_name(s), "status", status, "wall_seconds", (double)r->wall_ns / 1e9, "cpu_seconds",
        (double)r->cpu_ns / 1e9, "guest_instructions", (json_int_t)r->guest_instructions,
        "guest_errors", (json_int_t)guest_error_count());

    if (r->reason == VM_STOP_ERROR)
        (void)json_object_set_new(j, "error", json_string(error_text(&r->error)));
    (void)json_object_set_new(j, "stats", stats_json(s->vm));
    (void)json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    (void)putchar('\n');
    json_decref(j);
}

int run_session(struct run *run)
{
    struct session s = {.run = run,
                        .stop_fd = -1,
                        .signal_fd = -1,
                        .deadline_ns = INT64_MAX,
                        .kill_at_ns = INT64_MAX,
                        .eof_at_ns = INT64_MAX,
                        .power_at_ns = INT64_MAX};
    struct error err = {0};
    int status = CLI_ERROR;

    int r = start(&s, &err);
    if (!r) {
        serve(&s);
        (void)pthread_join(s.waiter, NULL);
        if (s.monitor)
            monitor_end(s.monitor, &s.result);
    }
    terminal_close(&s.terminal);
    log_set_fd(STDERR_FILENO, false);
    if (r) {
        (void)cmd_fail(run->cmd, CLI_ERROR, &err);
    } else {
        command_finish(run->command);
        status = conclude(&s);
        if (run->v->stats)
            print_stats(s.vm);
        if (run->v->json)
            print_json(&s, status);
    }
    if (s.monitor)
        monitor_release(s.monitor);
    else
        vm_free(s.vm);
    monitor_free(s.monitor);
    fd_close(s.signal_fd);
    fd_close(s.stop_fd);
    return status;
}
