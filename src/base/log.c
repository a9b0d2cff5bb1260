/* Log lines and trace events. All sinks are plain descriptors; a line is one write(). Thread safe.
 */
#include "base/log.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int log_fd = STDERR_FILENO;        /* [init] */
static bool log_crlf;                     /* [atomic] relaxed: only the look of a line */
static enum log_level log_max = LOG_WARN; /* [init] */
static int trace_fd = STDERR_FILENO;      /* [init] */
static struct trace_event *trace_events;  /* [init] */
static uint64_t guest_errors;             /* [atomic] relaxed: a statistic */
static int64_t guest_error_second;        /* [atomic] relaxed: rate limit, may be off by a line */
static unsigned guest_errors_in_second;   /* [atomic] relaxed: as above */

static struct trace_event event_guest_error = {.name = "guest_error"};

__attribute__((constructor)) static void register_guest_error(void)
{
    trace_register(&event_guest_error);
}

static void write_line(int fd, char *line, size_t size, int len, bool crlf)
{
    size_t n = len < 0 ? 0 : MIN((size_t)len, size - 3);

    if (crlf)
        line[n++] = '\r';
    line[n++] = '\n';
    if (write(fd, line, n) < 0) {
        /* a log sink that fails must not fail the program */
    }
}

static int append(char *line, size_t size, int at, const char *fmt, va_list ap)
{
    if (at < 0 || (size_t)at >= size)
        return at;
    return at + vsnprintf(line + at, size - (size_t)at, fmt, ap);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {"", "warning: ", ""};
    char line[1024];
    va_list ap;
    int n;

    if (level > log_max)
        return;
    n = snprintf(line, sizeof(line), "posada: %s", prefix[level]);
    va_start(ap, fmt);
    n = append(line, sizeof(line), n, fmt, ap);
    va_end(ap);
    write_line(log_fd, line, sizeof(line), n, __atomic_load_n(&log_crlf, __ATOMIC_RELAXED));
}

void log_set_level(enum log_level level)
{
    log_max = level;
}

void log_set_fd(int fd, bool crlf)
{
    log_fd = fd;
    __atomic_store_n(&log_crlf, crlf, __ATOMIC_RELAXED);
}

void trace_register(struct trace_event *event)
{
    event->next = trace_events;
    trace_events = event;
}

int trace_enable(const char *pattern)
{
    int n = 0;

    for (struct trace_event *e = trace_events; e; e = e->next) {
        if (!fnmatch(pattern, e->name, 0)) {
            __atomic_store_n(&e->enabled, true, __ATOMIC_RELAXED);
            n++;
        }
    }
    return n;
}

void trace_each(void (*fn)(const struct trace_event *event, void *arg), void *arg)
{
    for (struct trace_event *e = trace_events; e; e = e->next)
        fn(e, arg);
}

void trace_set_fd(int fd)
{
    trace_fd = fd;
}

void trace_line(const struct trace_event *event, const char *fmt, ...)
{
    char line[1024];
    struct timespec t;
    va_list ap;
    int n;

    clock_gettime(CLOCK_MONOTONIC, &t);
    n = snprintf(line, sizeof(line), "%lld.%06ld %ld %s ", (long long)t.tv_sec, t.tv_nsec / 1000,
                 syscall(SYS_gettid), event->name);
    va_start(ap, fmt);
    n = append(line, sizeof(line), n, fmt, ap);
    va_end(ap);
    write_line(trace_fd, line, sizeof(line), n,
               trace_fd == log_fd && __atomic_load_n(&log_crlf, __ATOMIC_RELAXED));
}

void guest_error(const char *dev, const char *fmt, ...)
{
    char text[256];
    struct timespec t;
    va_list ap;

    __atomic_fetch_add(&guest_errors, 1, __ATOMIC_RELAXED);
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    if (__atomic_exchange_n(&guest_error_second, t.tv_sec, __ATOMIC_RELAXED) != t.tv_sec)
        __atomic_store_n(&guest_errors_in_second, 0, __ATOMIC_RELAXED);
    bool print = __atomic_fetch_add(&guest_errors_in_second, 1, __ATOMIC_RELAXED) < 8;
    if (!print && !trace_on(&event_guest_error))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (trace_on(&event_guest_error))
        trace_line(&event_guest_error, "%s: %s", dev, text);
    else if (print)
        log_line(LOG_INFO, "guest error: %s: %s", dev, text);
}

uint64_t guest_error_count(void)
{
    return __atomic_load_n(&guest_errors, __ATOMIC_RELAXED);
}
