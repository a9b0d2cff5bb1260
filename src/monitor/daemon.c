/* posada-monitor: this program under another name, started for one instance.
 *
 *   command ── fork, setsid, fork, exec /proc/self/exe ──> posada-monitor NAME FD
 *           <── FD: "" (the machine runs) or a sentence ──
 *
 * It takes the run lock, owns the machine until it ends, and applies the restart policy. Threads:
 * main waits for the machine; SIGTERM starts one that stops it. */
#include "monitor/daemon.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/paths.h"
#include "monitor/monitor_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define NS_PER_S       1000000000LL
#define BACKOFF_MIN_NS (NS_PER_S / 2)
#define BACKOFF_MAX_NS (60 * NS_PER_S)
#define STABLE_NS      (30 * NS_PER_S) /* who ran for so long starts with a short pause again */

enum { LOG_MAX = 256 << 10, TERM_TIMEOUT_MS = 20000, ANSWER_MAX = ERROR_TEXT_MAX + 32 };

/* --- Starting one --- */

static _Noreturn void exec_monitor(const char *name, int answer_fd)
{
    char fd[16];
    sigset_t none;

    (void)snprintf(fd, sizeof(fd), "%d", answer_fd);
    (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC); /* nothing of ours but: */
    (void)fcntl(answer_fd, F_SETFD, 0);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    if (chdir("/")) {
        /* then it keeps our folder, which cannot be unmounted meanwhile */
    }
    (void)execl("/proc/self/exe", "posada-monitor", name, fd, (char *)NULL);
    (void)dprintf(answer_fd, "%d cannot run /proc/self/exe: %s\n", errno, strerror(errno));
    _exit(127);
}

/** "ERRNO SENTENCE\n", or "0\n". */
static int read_answer(int fd, struct error *err)
{
    char text[ANSWER_MAX] = "";
    size_t size = 0;
    ssize_t n;
    int code = 0, used = 0;

    while (size < sizeof(text) - 1 && (n = read(fd, text + size, sizeof(text) - 1 - size)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        size += n > 0 ? (size_t)n : 0;
    }
    text[strcspn(text, "\n")] = '\0';
    if (sscanf(text, "%d%n", &code, &used) != 1)
        return error_set(err, EIO, "the machine's monitor ended without a word");
    return code ? error_set(err, code, "%s", text + used + (text[used] == ' ')) : 0;
}

int daemon_spawn(const char *name, int *ret_fd, struct error *err)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC))
        return error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    (void)fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        (void)setsid();
        pid = fork();
        if (!pid)
            exec_monitor(name, fds[1]);
        _exit(pid < 0);
    }
    int status = 1;
    int code = errno;
    fd_close(fds[1]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        /* again */
    }
    if (pid < 0 || status) {
        fd_close(fds[0]);
        return error_set(err, pid < 0 ? code : EAGAIN, "cannot start a process");
    }
    *ret_fd = fds[0];
    return 0;
}

int daemon_await(int fd, struct error *err)
{
    int r = read_answer(fd, err);

    fd_close(fd);
    return r;
}

int daemon_start(const char *name, struct error *err)
{
    int fd;
    int r = daemon_spawn(name, &fd, err);

    return r ? r : daemon_await(fd, err);
}

/* --- Being one --- */

struct daemon {
    struct instance *instance;
    struct monitor *monitor;
    int signal_fd;
    struct loop_fd signal_watch;
    pthread_t stopper; /* [loop] until the watch is gone */
    bool stopper_runs; /* [loop] likewise */
};

/** Standard descriptors: nothing, and the instance's monitor.log. */
static void redirect(const struct instance *in)
{
    cleanup(freep) char *path = instance_path(in, NULL, "monitor.log");
    cleanup(fd_closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct stat st;
    bool full = path && !stat(path, &st) && st.st_size > LOG_MAX;
    cleanup(fd_closep) int log =
        path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (full ? O_TRUNC : 0), 0600)
             : -1;

    if (null < 0)
        return;
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(log < 0 ? null : log, STDOUT_FILENO);
    (void)dup2(log < 0 ? null : log, STDERR_FILENO);
}

static void tell(int *answer_fd, const struct error *err)
{
    if (*answer_fd < 0)
        return;
    if (err->code)
        (void)dprintf(*answer_fd, "%d %s\n", err->code, error_text(err));
    else
        (void)dprintf(*answer_fd, "0\n");
    fd_close(fd_take(answer_fd));
}

static void *stopper_main(void *arg)
{
    struct error err = {0};

    if (monitor_stop(arg, TERM_TIMEOUT_MS, true, NULL, &err))
        log_warn("%s", error_text(&err));
    return NULL;
}

static void signal_ready(struct loop_fd *w, uint32_t events)
{
    struct daemon *d = w->arg;
    struct signalfd_siginfo info;

    if (read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info) && !d->stopper_runs)
        d->stopper_runs = !thread_start(&d->stopper, "stop", stopper_main, d->monitor);
}

/** SIGTERM and SIGINT are asked for in every thread before any starts. */
static int block_signals(struct daemon *d, struct error *err)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return d->signal_fd < 0 ? error_set(err, errno, "cannot watch signals: %s", strerror(errno))
                            : 0;
}

/** Does the policy want it to run again after this end? */
static bool wants_restart(struct monitor *m, const struct vm_result *result, unsigned done)
{
    unsigned max;
    enum restart_policy policy = monitor_policy(m, &max);
    bool failed = result->reason == VM_STOP_ERROR || result->reason == VM_STOP_PANIC;

    switch (policy) {
    case RESTART_NO:
        return false;
    case RESTART_ON_FAILURE:
        return failed && (!max || done < max);
    case RESTART_ALWAYS:
    case RESTART_UNLESS_STOPPED:
        return true;
    }
    return false;
}

/** Run the machine, again and again as its policy says. */
static void run(struct daemon *d)
{
    struct monitor *m = d->monitor;
    int64_t backoff_ns = BACKOFF_MIN_NS;
    struct vm_result result;
    struct error err;
    unsigned done = 0;
    int r = 0;

    for (;;) {
        int64_t began_ns = host_now_ns();
        result = (struct vm_result){.reason = VM_STOP_ERROR, .status = 1};
        if (!r) {
            struct vm *vm = monitor_hold(m);
            if (vm_wait(vm, INT64_MAX, &result))
                result.reason = VM_STOP_ERROR; /* without a limit it has none to report */
            monitor_release(m);
        } else {
            result.error = err;
        }
        if (result.reason == VM_STOP_ERROR)
            log_error("%s", error_text(&result.error));
        if (monitor_is_stopping(m) || !wants_restart(m, &result, done))
            break;
        backoff_ns = host_now_ns() - began_ns > STABLE_NS ? BACKOFF_MIN_NS
                                                          : MIN(2 * backoff_ns, BACKOFF_MAX_NS);
        monitor_event(m, "restarting",
                      json_pack("{s:i, s:f}", "status", result.status, "delay_seconds",
                                (double)backoff_ns / NS_PER_S));
        if (monitor_wait_stopping(m, host_now_ns() + backoff_ns))
            break;
        done++;
        err = (struct error){0};
        r = monitor_rebuild(m, &err);
        if (!r)
            r = monitor_start(m, &err);
    }
    monitor_end(m, &result);
}

static int start(struct daemon *d, const char *name, const struct monitor_options *options,
                 struct error *err)
{
    int r = instance_open(name, 0, &d->instance, err);

    if (r)
        return r;
    redirect(d->instance);
    r = instance_take_run(d->instance, err);
    if (!r)
        r = block_signals(d, err);
    if (!r)
        r = monitor_new(d->instance, options, &d->monitor, err);
    if (r)
        return r;
    d->signal_watch = (struct loop_fd){.fd = d->signal_fd, .fn = signal_ready, .arg = d};
    r = loop_fd_add(monitor_loop(d->monitor), &d->signal_watch, EPOLLIN);
    if (r)
        return error_set(err, -r, "cannot watch signals: %s", strerror(-r));
    return monitor_start(d->monitor, err);
}

static void finish(struct daemon *d)
{
    if (d->monitor && d->signal_watch.fd >= 0) {
        loop_fd_remove(monitor_loop(d->monitor), &d->signal_watch);
        loop_sync(monitor_loop(d->monitor));
    }
    if (d->stopper_runs)
        thread_join(d->stopper);
    monitor_free(d->monitor);
    instance_close(d->instance);
    fd_close(d->signal_fd);
}

int daemon_be(const char *name, int answer_fd, const struct monitor_options *options)
{
    struct daemon d = {.signal_fd = -1, .signal_watch.fd = -1};
    struct error err = {0};

    (void)fcntl(answer_fd, F_SETFD, FD_CLOEXEC);
    (void)prctl(PR_SET_NAME, "posada-monitor");
    int r = start(&d, name, options, &err);
    tell(&answer_fd, &err);
    if (!r)
        run(&d);
    finish(&d);
    return r ? 1 : 0;
}

int daemon_main(int argc, char **argv)
{
    const struct monitor_options options = {.terminal_fd = -1};
    int answer_fd = argc == 3 ? atoi(argv[2]) : -1;

    if (answer_fd < 3) {
        (void)fprintf(stderr, "posada-monitor: 'posada start' starts it\n");
        return 2;
    }
    (void)mallopt(M_ARENA_MAX, 2); /* many of us run at once; each arena keeps memory of its own */
    return daemon_be(argv[1], answer_fd, &options);
}
