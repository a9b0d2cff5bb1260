/* A machine in the foreground: what the main thread does while the guest runs. Private to posada
 * run. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "cli/run.h"
#include "cli/terminal.h"

#include <pthread.h>

/** Why the run ended, when it was not the guest's doing. */
enum session_end { SESSION_GUEST, SESSION_USER, SESSION_TIMEOUT, SESSION_SIGNAL };

enum { SESSION_INPUT_MAX = 4096 };

struct session {
    struct run *run;
    struct monitor *monitor; /* of an instance; NULL = none */
    struct vm *vm;           /* the monitor's, or ours */
    struct vm_result result; /* [init] for the main thread once stop_fd is readable */
    pthread_t waiter;
    int stop_fd;   /* eventfd: the machine has stopped */
    int signal_fd; /* signalfd */
    struct terminal terminal;

    /* input for the guest's console; main thread */
    bool reads_stdin;
    bool stdin_is_tty;
    bool stdin_had_data;
    int64_t eof_at_ns; /* type the end-of-file key then; INT64_MAX = not yet, or never */
    char input[SESSION_INPUT_MAX];
    size_t input_at, input_size;
    bool in_menu; /* the next key is for the menu */

    enum session_end end;
    int signo;           /* that ended it */
    int64_t deadline_ns; /* of --timeout; INT64_MAX = none */
    int64_t power_at_ns; /* type the next power-off key then; INT64_MAX = none */
    unsigned power_step;
    int64_t kill_at_ns; /* pull the plug then; INT64_MAX = not asked to stop */
};

/** Read stdin, take out menu keys, pass the rest on to the guest. */
void session_read_input(struct session *s);

/** Pass on what the guest had no room for. False: it still has none. */
bool session_push_input(struct session *s);

/** After a pipe's end, type Ctrl-D every half second until the machine stops: a shell that reads
 * its next line in raw mode does not see the one that was typed while it was busy. */
void session_type_eof(struct session *s, int64_t now_ns);

/** Print a line on stderr, in whatever mode the terminal is. */
void session_say(const struct session *s, const char *fmt, ...) printf_like(2, 3);

/** Begin to ask the guest to power off; false when it has nothing to hear us with. */
bool session_ask_power_off(struct session *s, int64_t now_ns);

/** Type the next of the keys that ask it, when it is time. */
void session_type_power_off(struct session *s, int64_t now_ns);

/** Ask the guest to power off, and pull the plug when it has not after @grace_ms, or cannot be
 * asked. */
void session_request_stop(struct session *s, enum session_end why, int grace_ms);

#endif
