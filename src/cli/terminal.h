/* The user's terminal while a guest has it: raw mode that is always taken back, its size, and the
 * escape key.
 *
 * A guard process (a child that only waits) restores the terminal when Posada dies without doing so
 * itself, killed or crashed; it leaves a terminal alone whose mode somebody has changed since. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include "base/macros.h"

#include <sys/types.h>
#include <termios.h>

struct error;

enum { TERMINAL_ESCAPE = 0x1d }; /* Ctrl-] */

struct terminal {
    int fd; /* borrowed */
    struct termios saved;
    struct termios raw;
    bool is_raw;
    int guard_fd; /* closing it without a word makes the guard restore the terminal */
    pid_t guard;
};

/** Take terminal @fd (borrowed, also by the guard) and put it in raw mode. The caller is in the
 * foreground. On failure the terminal is as it was. */
must_check int terminal_open(struct terminal *t, int fd, struct error *err);

/** Back to the mode found by terminal_open(); idempotent; fine on a zeroed or failed one. */
void terminal_close(struct terminal *t);

/** Raw mode once more, after a stop and SIGCONT. */
void terminal_continue(struct terminal *t);

/** Size of the terminal @fd; false when it has none. */
bool terminal_size(int fd, unsigned *ret_columns, unsigned *ret_rows);

#endif
