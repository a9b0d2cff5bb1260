/* posada-monitor: the process that runs one instance in the background. */
#ifndef MONITOR_DAEMON_H
#define MONITOR_DAEMON_H

#include "base/error.h"

/** Start a monitor for instance @name, orphaned from this process, and wait until its machine runs.
 * The caller holds the instance's lock. Errors: the monitor's. From a process with one thread. */
must_check int daemon_start(const char *name, struct error *err);

/** The two halves of that, for several at once: start it, and wait for it, which takes @fd. */
must_check int daemon_spawn(const char *name, int *ret_fd, struct error *err);
must_check int daemon_await(int fd, struct error *err);

struct monitor_options;

/** Be the monitor of instance @name until its machine has ended; @answer_fd (taken) is told once
 * whether it runs. The exit status. For a process with this one thread. */
int daemon_be(const char *name, int answer_fd, const struct monitor_options *options);

/** main() of posada-monitor: NAME FD, where FD takes one line, "" or why it could not start. */
int daemon_main(int argc, char **argv);

#endif
