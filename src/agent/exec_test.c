/* Both ends of the agent: answers, programs, their streams, signals and terminals. */
#include "agent/test_agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#define SH(text)               \
    (const char *const[])      \
    {                          \
        "sh", "-c", text, NULL \
    }

TEST(ping_and_info)
{
    struct agent *a;
    struct agent_info *i = calloc(1, sizeof(*i));
    struct utsname u;
    pid_t pid = test_agent_start(&a);

    EXPECT_EQ(agent_ping(a, soon(), NULL), 0);
    ASSERT_EQ(agent_get_info(a, soon(), i, NULL), 0);
    ASSERT_EQ(uname(&u), 0);
    EXPECT_STR(i->hostname, u.nodename);
    EXPECT_STR(i->kernel, u.release);
    EXPECT_STR(i->machine, u.machine);
    EXPECT_TRUE(i->uptime_ms > 0);
    EXPECT_TRUE(i->os_name[0] && i->version[0] && i->boot_id[0]);
    free(i);
    test_agent_stop(a, pid);
}

TEST(what_is_not_allowed_is_refused_and_the_session_goes_on)
{
    struct agent *a;
    struct error err = {0};
    unsigned count;
    pid_t pid = test_agent_start(&a);

    EXPECT_EQ(agent_freeze(a, 1000, soon(), &count, &err), -ENOSYS);
    EXPECT_STR(err.text, "the guest's agent is not allowed to do 'freeze'");
    EXPECT_EQ(agent_ping(a, soon(), NULL), 0);
    test_agent_stop(a, pid);
}

TEST(exit_statuses_and_signals)
{
    struct agent *a;
    pid_t pid = test_agent_start(&a);

    for (int status = 0; status < 256; status += 51) {
        char text[32];

        (void)snprintf(text, sizeof(text), "exit %d", status);
        struct agent_exit x = test_run(a, SH(text), -1, -1, -1);
        EXPECT_EQ(x.value, status);
        EXPECT_TRUE(!x.by_signal);
    }
    struct agent_exit x = test_run(a, SH("kill -TERM $$"), -1, -1, -1);
    EXPECT_EQ(x.value, SIGTERM);
    EXPECT_TRUE(x.by_signal);
    test_agent_stop(a, pid);
}

TEST(what_cannot_be_run_says_why)
{
    static const char *const none[] = {"no-such-program", NULL}, *const folder[] = {"/tmp", NULL},
                             *const ok[] = {"true", NULL};
    const struct {
        struct agent_exec e;
        int rc;
        const char *text;
    } cases[] = {
        {{.argv = none},                                        -ENOENT, "cannot run 'no-such-program': No such file or directory"},
        {{.argv = folder},                                      -EACCES, "cannot run '/tmp': Permission denied"                   },
        {{.argv = ok, .cwd = "/no/such"},
         -EINVAL,
         "cannot enter folder '/no/such': No such file or directory"                                                              },
        {{.argv = ok, .user = "nobody-at-all"},
         -EINVAL,
         "there is no user 'nobody-at-all' in the guest"                                                                          },
        {{.argv = ok, .env = (const char *const[]){"x", NULL}},
         -EINVAL,
         "'x' is no environment variable"                                                                                         },
        {{.argv = (const char *const[]){NULL}},                 -EINVAL, "there is no program to run"                             },
    };
    struct agent *a;
    pid_t pid = test_agent_start(&a);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error err = {0};

        EXPECT_EQ(agent_exec_start(a, &cases[i].e, soon(), &err), cases[i].rc);
        EXPECT_STR(err.text, cases[i].text);
    }
    EXPECT_EQ(test_run(a, ok, -1, -1, -1).value, 0);
    test_agent_stop(a, pid);
}

TEST(folder_environment_and_words)
{
    const struct agent_exec e = {
        .argv =
            (const char *const[]){"sh",    "-c", "pwd; echo \"$A|$HOME|$1|$2\"; echo \"${B-none}\"",
                                  "sh", "a  b", "", NULL},
        .env = (const char *const[]){"A=it's", "HOME=/here",   NULL                                                },
        .cwd = "/usr",
    };
    struct agent *a;
    struct agent_exit x;
    pid_t pid = test_agent_start(&a);
    int out = test_file();
    struct agent_streams s = {.in_fd = -1, .out_fd = out, .err_fd = -1, .event_fd = -1};

    (void)setenv("B", "the agent's own environment is not passed on", 1);
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    ASSERT_EQ(agent_exec_run(a, &s, &x, NULL), 0);
    EXPECT_STR(test_text(out), "/usr\nit's|/here|a  b|\nnone\n");
    fd_close(out);
    test_agent_stop(a, pid);
}

TEST(much_data_both_ways_and_standard_error_apart)
{
    enum { SIZE = 24 << 20 };
    unsigned char *data = malloc(SIZE), *back = malloc(SIZE);
    struct agent *a;
    pid_t pid = test_agent_start(&a);
    int in = test_file(), out = test_file(), errs = test_file();

    ASSERT_TRUE(data && back);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (unsigned char)((i * 2654435761u) >> 13);
    ASSERT_EQ(fd_pwrite_all(in, data, SIZE, 0), 0);
    EXPECT_EQ(test_run(a, SH("echo aside >&2; cat; exit 3"), in, out, errs).value, 3);
    EXPECT_EQ(lseek(out, 0, SEEK_END), SIZE);
    ASSERT_EQ(fd_pread_all(out, back, SIZE, 0), 0);
    EXPECT_MEM(back, data, SIZE);
    EXPECT_STR(test_text(errs), "aside\n");
    free(data);
    free(back);
    fd_close(in);
    fd_close(out);
    fd_close(errs);
    test_agent_stop(a, pid);
}

TEST(a_program_that_reads_nothing_ends_and_the_next_one_starts)
{
    struct agent *a;
    pid_t pid = test_agent_start(&a);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(test_run(a, SH("exit 4"), zero, -1, -1).value, 4);
        EXPECT_EQ(test_run(a, SH("exec <&-; sleep 0.1; exit 5"), zero, -1, -1).value, 5);
    }
    fd_close(zero);
    test_agent_stop(a, pid);
}

TEST(what_a_program_leaves_behind_does_not_keep_its_end_back)
{
    struct agent *a;
    pid_t pid = test_agent_start(&a);
    int out = test_file();

    /* The one in the background holds the pipes open until it is killed below. */
    EXPECT_EQ(test_run(a, SH("sleep 1000 & echo $!; exit 6"), -1, out, -1).value, 6);
    pid_t left = atoi(test_text(out));
    ASSERT_TRUE(left > 1);
    EXPECT_EQ(kill(left, SIGKILL), 0);
    fd_close(out);
    test_agent_stop(a, pid);
}

struct talk {
    int fd; /* what the program says */
    int step;
};

/** Once the program has said something, interrupt it. */
static int interrupt(struct agent *a, void *arg)
{
    struct talk *t = arg;
    char buf[64];

    if (read(t->fd, buf, sizeof(buf)) > 0 && !t->step++)
        EXPECT_EQ(agent_exec_signal(a, SIGUSR1), 0);
    return 0;
}

TEST(a_signal_arrives_though_input_is_stuck)
{
    const struct agent_exec e = {
        .argv = SH("trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")};
    struct agent *a;
    struct agent_exit x;
    int out[2], zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    pid_t pid = test_agent_start(&a);

    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    struct talk t = {.fd = out[0]};
    struct agent_streams s = {.in_fd = zero,
                              .out_fd = out[1],
                              .err_fd = -1,
                              .event_fd = out[0],
                              .event = interrupt,
                              .arg = &t};
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    ASSERT_EQ(agent_exec_run(a, &s, &x, NULL), 0);
    EXPECT_EQ(x.value, 9);
    EXPECT_EQ(t.step, 1);
    fd_close(out[0]);
    fd_close(out[1]);
    fd_close(zero);
    test_agent_stop(a, pid);
}

TEST(a_reader_that_goes_away_ends_the_program_as_a_pipe_does)
{
    const struct agent_exec e = {
        .argv = (const char *const[]){"yes", NULL}
    };
    struct agent *a;
    struct agent_exit x;
    int out[2];
    pid_t pid = test_agent_start(&a);

    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    fd_close(out[0]);
    struct agent_streams s = {.in_fd = -1, .out_fd = out[1], .err_fd = -1, .event_fd = -1};
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    ASSERT_EQ(agent_exec_run(a, &s, &x, NULL), 0);
    EXPECT_TRUE(x.by_signal);
    EXPECT_EQ(x.value, SIGPIPE);
    fd_close(out[1]);
    test_agent_stop(a, pid);
}

/** Give the terminal another size when the program has printed the first one. */
static int resize(struct agent *a, void *arg)
{
    struct talk *t = arg;
    char buf[256];
    ssize_t n = read(t->fd, buf, sizeof(buf) - 1);

    buf[MAX(n, (ssize_t)0)] = '\0';
    if (strstr(buf, "33 91") && !t->step++)
        EXPECT_EQ(agent_exec_resize(a, 100, 40), 0);
    if (strstr(buf, "40 100"))
        t->step++;
    return 0;
}

TEST(a_terminal_has_a_size_and_keys)
{
    const struct agent_exec e = {
        .argv = SH("trap 'stty size' WINCH; tty -s && stty size; cat >/dev/null & "
                   "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); sleep 0.05; done; exit 7"),
        .tty = true,
        .columns = 91,
        .rows = 33,
    };
    struct agent *a;
    struct agent_exit x;
    int out[2];
    pid_t pid = test_agent_start(&a);

    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    struct talk t = {.fd = out[0]};
    struct agent_streams s = {.in_fd = -1,
                              .out_fd = out[1],
                              .err_fd = -1,
                              .event_fd = out[0],
                              .event = resize,
                              .arg = &t};
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    ASSERT_EQ(agent_exec_run(a, &s, &x, NULL), 0);
    EXPECT_EQ(x.value, 7);
    EXPECT_EQ(t.step, 2);
    fd_close(out[0]);
    fd_close(out[1]);
    test_agent_stop(a, pid);
}

TEST(the_end_of_input_on_a_terminal_is_its_key)
{
    const struct agent_exec e = {.argv = SH("cat; echo end"), .tty = true};
    struct agent *a;
    struct agent_exit x;
    int in = test_file(), out = test_file();
    pid_t pid = test_agent_start(&a);
    struct agent_streams s = {.in_fd = in, .out_fd = out, .err_fd = -1, .event_fd = -1};

    ASSERT_EQ(fd_pwrite_all(in, "line\n", 5, 0), 0);
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    ASSERT_EQ(agent_exec_run(a, &s, &x, NULL), 0);
    EXPECT_STR(test_text(out), "line\r\nline\r\nend\r\n");
    fd_close(in);
    fd_close(out);
    test_agent_stop(a, pid);
}

TEST(a_program_is_looked_for_in_the_path_that_it_gets)
{
    const struct agent_exec e = {
        .argv = SH("exit 0"), .env = (const char *const[]){"PATH=/no/such", NULL}
    };
    struct agent *a;
    pid_t pid = test_agent_start(&a);

    EXPECT_EQ(agent_exec_start(a, &e, soon(), NULL), -ENOENT);
    test_agent_stop(a, pid);
}

TEST(a_login_shell_is_called_one)
{
    const struct agent_exec e = {0};
    struct agent *a;
    struct agent_exit x;
    int in = test_file(), out = test_file();
    pid_t pid = test_agent_start(&a);
    struct agent_streams s = {.in_fd = in, .out_fd = out, .err_fd = -1, .event_fd = -1};

    ASSERT_EQ(fd_pwrite_all(in, "echo \"<$0>\"\n", 12, 0), 0);
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    ASSERT_EQ(agent_exec_run(a, &s, &x, NULL), 0);
    EXPECT_TRUE(strstr(test_text(out), "<-"));
    fd_close(in);
    fd_close(out);
    test_agent_stop(a, pid);
}

TEST(when_the_host_is_gone_the_program_is_hung_up)
{
    char path[] = "/tmp/posada-agent-test-XXXXXX", text[256];
    int fd = mkstemp(path);
    struct agent *a;
    pid_t pid = test_agent_start(&a);
    struct stat st = {0};

    ASSERT_TRUE(fd >= 0);
    (void)snprintf(text, sizeof(text),
                   "exec 2>/dev/null; trap 'echo hup >%s; exit' HUP; while :; do sleep 0.05; done",
                   path);
    const struct agent_exec e = {.argv = SH(text)};
    ASSERT_EQ(agent_exec_start(a, &e, soon(), NULL), 0);
    (void)usleep(200000); /* so that the shell has set its trap */
    test_agent_stop(a, pid);
    for (int i = 0; i < 600 && !st.st_size; i++) {
        (void)usleep(50000);
        ASSERT_EQ(fstat(fd, &st), 0);
    }
    EXPECT_STR(test_text(fd), "hup\n");
    (void)unlink(path);
    fd_close(fd);
}
