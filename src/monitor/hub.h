/* The guest's console and who watches it: a log file, the terminal of a machine in the foreground,
 * and connections that were handed over by the API. */
#ifndef MONITOR_HUB_H
#define MONITOR_HUB_H

#include "base/error.h"

#include <sys/types.h>

struct hub;
struct loop;

/** @log_path: where what the guest says is kept (at most HUB_LOG_MAX bytes, and as much in
 * @log_path.1); NULL: nowhere. @terminal_fd: borrowed; -1 = none: a terminal that does not take
 * what the guest says makes the guest wait. *@ret is the caller's. */
enum { HUB_LOG_MAX = 1 << 20 };
must_check int hub_new(struct loop *loop, const char *log_path, int terminal_fd, struct hub **ret,
                       struct error *err);
/** On the loop's thread, or when it runs no more. Takes NULL. */
void hub_free(struct hub *h);

/** Where the guest's console writes: for vm_config.console_out; borrowed. */
int hub_console_fd(const struct hub *h);

/** What clients type goes to @input (bytes taken; 0: no room now), until it is replaced (NULL:
 * dropped). Any thread; the old one is not called any more when this returns. */
void hub_set_input(struct hub *h, size_t (*input)(void *arg, const void *data, size_t size),
                   void *arg);

/** Give connection @fd (taken, non-blocking) the console, until it closes. A client that does not
 * read misses bytes. On the loop's thread. */
void hub_attach(struct hub *h, int fd);

/** Wait until what the guest has written so far has got to the terminal and the log, or until
 * CLOCK_MONOTONIC @deadline_ns. Not on the loop. */
void hub_drain(struct hub *h, int64_t deadline_ns);

#endif
