/* The host's side of `posada run IMAGE -- COMMAND`: ports for its streams, the guest's console kept
 * aside. Protocol: docs/guest-command.md. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/macros.h"

struct command;
struct error;
struct run;

/** Encode the command, open its streams and add its ports and console to run's config. Until
 * command_finish(), stdin is copied to the guest by a thread. *@ret is the caller's, for
 * command_free(). */
must_check int command_new(struct run *run, struct command **ret, struct error *err);

/** All of these take NULL, for a run without a command. */

/** Readable when the guest's console has said something; -1 = none. */
int command_console_fd(const struct command *c);
void command_read_console(struct command *c);

/** The machine has stopped: collect what it has sent. */
void command_finish(struct command *c);

/** The command's exit status, once the guest has sent it. */
bool command_get_status(const struct command *c, int *ret);

/** Print the last lines of the guest's console to stderr, to explain a failure. */
void command_show_console(struct command *c);

void command_free(struct command *c);

#endif
