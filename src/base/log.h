/* Log messages for people, and trace events for developers.
 *
 * error: a person must act. warn: handled, degraded. info: lifecycle only. Everything else is a
 * trace event, declared in its folder's trace.def, from which tools/gen/trace.py makes a function:
 *
 *     vq_pop(unsigned queue, unsigned head) "queue %u head %u"      ->  trace_vq_pop(queue, head)
 *
 * A disabled event costs one load and one branch. `--trace 'vq_*'` enables by shell pattern. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/macros.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO };

/** Print one line, "posada: " and the formatted sentence, to the log sink. Thread safe. Only main/,
 * cli/ and vm/ report errors; libraries return struct error. */
void log_line(enum log_level level, const char *fmt, ...) printf_like(2, 3);
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)

/** Least severe level that is printed; LOG_WARN at start. */
void log_set_level(enum log_level level);

/** Where lines go: descriptor @fd (borrowed), stderr at start. With @crlf, lines end in \r\n (a raw
 * terminal). */
void log_set_fd(int fd, bool crlf);

struct trace_event {
    const char *name;
    bool enabled; /* [atomic] relaxed: a late change only loses or adds a line */
    struct trace_event *next;
};

/** Make @event known; called by generated constructors before main(). */
void trace_register(struct trace_event *event);

/** Enable every event whose name matches shell pattern @pattern. Returns how many matched. Any
 * thread. */
int trace_enable(const char *pattern);

/** Call @fn for each event known, in no order that matters. */
void trace_each(void (*fn)(const struct trace_event *event, void *arg), void *arg);

/** Send trace lines to descriptor @fd (borrowed); stderr at start. */
void trace_set_fd(int fd);

/** Write one trace line: time in µs, thread, event name, text. Called by generated code only. */
void trace_line(const struct trace_event *event, const char *fmt, ...) printf_like(2, 3);

static inline bool trace_on(const struct trace_event *event)
{
    return unlikely(__atomic_load_n(&event->enabled, __ATOMIC_RELAXED));
}

/** The guest did something its device or architecture forbids: counted, traced as `guest_error`,
 * and printed as a warning at most 8 times a second over all devices. Never fatal. @dev names the
 * device. Any thread. */
void guest_error(const char *dev, const char *fmt, ...) printf_like(2, 3);

/** How many guest errors were seen so far. */
uint64_t guest_error_count(void);

#endif
