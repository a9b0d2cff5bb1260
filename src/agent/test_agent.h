/* For tests of the agent: the guest's end as a process of this host, on a socket pair. */
#ifndef AGENT_TEST_AGENT_H
#define AGENT_TEST_AGENT_H

#include "agent/agent.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/test.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

/** Far enough for a loaded machine; reached only when something hangs. */
static inline int64_t soon(void)
{
    return host_now_ns() + 60000000000;
}

static const struct tree_options test_copy = {.silence_ms = 60000};

/** Verbs that change this host are not among the allowed. */
static inline pid_t test_agent_start_program(const char *program, struct agent **ret)
{
    int pair[2];

    (void)signal(SIGPIPE, SIG_IGN);
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    if (!pid) {
        (void)dup2(pair[1], 0);
        (void)execl(program, program, "--stdio", "--allow", "ping,info,exec,put,get", NULL);
        _exit(127);
    }
    fd_close(pair[1]);
    ASSERT_TRUE(pid > 0);
    ASSERT_EQ(agent_open(pair[0], ret, NULL), 0);
    return pid;
}

#define test_agent_start(ret) test_agent_start_program(AGENT_PROGRAM, ret) /* from meson.build */

/** The session ends when the host goes. */
static inline void test_agent_stop(struct agent *a, pid_t pid)
{
    int status;

    agent_close(a);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
}

/** Run @argv with these descriptors to its end. */
static inline struct agent_exit test_run(struct agent *a, const char *const *argv, int in_fd,
                                         int out_fd, int err_fd)
{
    struct agent_exec e = {.argv = argv};
    struct agent_streams s = {.in_fd = in_fd, .out_fd = out_fd, .err_fd = err_fd, .event_fd = -1};
    struct agent_exit x = {.value = -1};
    struct error err = {0};

    if (agent_exec_start(a, &e, soon(), &err) || agent_exec_run(a, &s, &x, &err))
        test_fail(__FILE__, __LINE__, "%s: %s", argv[0], err.text);
    return x;
}

/** A file of the test's, deleted already. */
static inline int test_file(void)
{
    FILE *f = tmpfile();
    int fd = f ? dup(fileno(f)) : -1;

    if (f)
        (void)fclose(f); /* the duplicate stays */
    ASSERT_TRUE(fd >= 0);
    return fd;
}

/** What is in it, as text. */
static inline const char *test_text(int fd)
{
    static char text[4096];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[MAX(n, (ssize_t)0)] = '\0';
    return text;
}

#endif
