/* Verbs that talk with a running guest's agent: finding the guest, running programs in it. */
#ifndef CLI_INSIDE_H
#define CLI_INSIDE_H

#include "agent/agent.h"
#include "cli/cmd.h"

/** How long a verb waits for a guest that is still booting, as an option of all these verbs. */
#define INSIDE_WAIT_ROW(s)                                                             \
    {                                                                                  \
        .name = "wait", OPT_INTO_DURATION(s, wait_ms), .arg = "TIME", .def = "5s",     \
        .group = "Guest", .help = "How long to wait for a guest that is still booting" \
    }

/** The folder of a running guest's sockets: of instance @name, or, with a slash in it, the folder
 * that 'posada run --vsock' was given. The caller's; NULL with @err set: nothing of that name
 * runs. */
char *inside_sockets(const char *name, struct error *err);

/** Connect to the agent of guest @name. *@ret is the caller's, for agent_close(). */
must_check int inside_connect(const char *name, int64_t wait_ms, struct agent **ret,
                              struct error *err);

/** Run @e in guest @name on this process's streams (with @interactive, also standard input), in
 * raw mode if it has a terminal and so have we, with signals passed on. The exit status: the
 * program's; 128 + n when a signal ended it; 126 and 127 as shells have them; CLI_ERROR. */
int inside_exec(const struct cmd *cmd, const char *name, int64_t wait_ms, struct agent_exec *e,
                bool interactive);

#endif
