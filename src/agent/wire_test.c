/* Messages: in pieces, whole, and wrong; and both ends' answers to an end that lies. */
#include "agent/test_agent.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static void make_pair(struct wire *a, struct wire *b)
{
    int pair[2];

    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    wire_init(a, pair[0]);
    wire_init(b, pair[1]);
}

TEST(messages_arrive_in_whatever_pieces)
{
    struct wire a, b;
    struct wire_frame f;
    int64_t v;
    const char *value = NULL;

    make_pair(&a, &b);
    wire_begin(&a, WIRE_REQUEST);
    wire_field(&a, "verb", "x");
    wire_field(&a, "arg", "");
    wire_field(&a, "arg", "a=b");
    wire_field_int(&a, "n", -42);
    ASSERT_EQ(wire_end(&a), 0);
    ASSERT_EQ(wire_add(&a, WIRE_IN, NULL, 0), 0);
    size_t size = wire_pending(&a);
    for (size_t i = 0; i < size; i++) {
        EXPECT_EQ(wire_next(&b, &f), 0);
        ASSERT_EQ(send(a.fd, a.out + i, 1, 0), 1);
        ASSERT_EQ(wire_fill(&b), 1);
        if (i == size - 1 - WIRE_HEADER_BYTES) {
            ASSERT_EQ(wire_next(&b, &f), 1);
            ASSERT_TRUE(wire_has_fields(&f));
            EXPECT_STR(wire_find(&f, "verb"), "x");
            EXPECT_STR(wire_each(&f, "arg", &value), "");
            EXPECT_STR(wire_each(&f, "arg", &value), "a=b");
            EXPECT_TRUE(!wire_each(&f, "arg", &value));
            EXPECT_TRUE(!wire_find(&f, "ar"));
            EXPECT_EQ(wire_find_int(&f, "n", -42, 0, 0, &v), 0);
            EXPECT_EQ(v, -42);
            EXPECT_EQ(wire_find_int(&f, "n", -41, 0, 0, &v), -EPROTO);
            EXPECT_EQ(wire_find_int(&f, "arg", 0, 9, 0, &v), -EPROTO);
            EXPECT_EQ(wire_find_int(&f, "m", 0, 9, 5, &v), 0);
            EXPECT_EQ(v, 5);
        }
    }
    ASSERT_EQ(wire_next(&b, &f), 1);
    EXPECT_EQ(f.kind, WIRE_IN);
    EXPECT_EQ(f.size, 0);
    wire_done(&a);
    EXPECT_EQ(wire_recv(&b, soon(), &f), -ECONNRESET);
    wire_done(&b);
}

TEST(the_largest_message_and_one_that_is_larger)
{
    char *text = malloc(WIRE_BODY_MAX + 1);
    struct wire a, b;
    struct wire_frame f;
    pid_t pid;

    ASSERT_TRUE(text);
    make_pair(&a, &b);
    memset(text, 'x', WIRE_BODY_MAX);
    text[WIRE_BODY_MAX - 3] = '\0';
    wire_begin(&a, WIRE_REQUEST);
    wire_field(&a, "k", text);
    EXPECT_EQ(wire_end(&a), 0);
    wire_begin(&a, WIRE_REQUEST);
    wire_field(&a, "k", text);
    wire_field(&a, "l", "");
    EXPECT_EQ(wire_end(&a), -E2BIG);
    pid = fork();
    if (!pid)
        _exit(wire_flush_all(&a, soon()) != 0);
    wire_done(&a);
    ASSERT_EQ(wire_recv(&b, soon(), &f), 0);
    EXPECT_EQ(f.size, WIRE_BODY_MAX);
    EXPECT_STR(wire_find(&f, "k"), text);
    EXPECT_EQ(wire_recv(&b, soon(), &f), -ECONNRESET); /* the other one was dropped */
    EXPECT_EQ(waitpid(pid, NULL, 0), pid);
    wire_done(&b);
    free(text);
}

TEST(headers_that_break_the_rules)
{
    static const unsigned char bad[][WIRE_HEADER_BYTES] = {
        {1,    0,    0x10, 0,    1,  0, 0, 0}, /* one byte too many */
        {0xff, 0xff, 0xff, 0xff, 1,  0, 0, 0},
        {0,    0,    0,    0,    0,  0, 0, 0},
        {0,    0,    0,    0,    15, 0, 0, 0},
        {0,    0,    0,    0,    1,  1, 0, 0},
        {0,    0,    0,    0,    1,  0, 0, 1},
    };
    struct wire_frame f;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct wire a, b;

        make_pair(&a, &b);
        ASSERT_EQ(send(a.fd, bad[i], sizeof(bad[i]), 0), sizeof(bad[i]));
        EXPECT_EQ(wire_recv(&b, soon(), &f), -EPROTO);
        wire_done(&a);
        wire_done(&b);
    }
}

TEST(fields_that_break_the_rules)
{
    static const struct {
        const char *body;
        size_t size;
        bool good;
    } cases[] = {
        {"",         0, true },
        {"a=b",      4, true },
        {"a=b",      3, false}, /* without a NUL */
        {"a",        2, false},
        {"=b",       3, false},
        {"\0",       1, false},
        {"a=\0b=",   6, true },
        {"a=\0\0b=", 7, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct wire_frame f = {.body = (const uint8_t *)cases[i].body, .size = cases[i].size};

        EXPECT_EQ(wire_has_fields(&f), cases[i].good);
    }
}

TEST(an_end_that_says_nothing_is_waited_for_until_the_deadline)
{
    struct wire a, b;
    struct wire_frame f;

    make_pair(&a, &b);
    EXPECT_EQ(wire_recv(&b, host_now_ns() + 20000000, &f), -ETIMEDOUT);
    int size = 1;
    while (!wire_pending(&a) && size < 1000) { /* until the socket is full */
        ASSERT_EQ(wire_add(&a, WIRE_IN, (char[4096]){0}, 4096), 0);
        ASSERT_EQ(wire_flush(&a), 0);
        size++;
    }
    EXPECT_EQ(wire_flush_all(&a, host_now_ns() + 20000000), -ETIMEDOUT);
    wire_done(&a);
    wire_done(&b);
}

TEST(the_guest_ends_a_session_that_breaks_the_rules)
{
    struct agent *a;
    struct wire_frame f;

    for (int i = 0; i < 3; i++) {
        pid_t pid = test_agent_start(&a);
        struct wire *w = agent_wire(a);

        if (i == 0) { /* an answer is no request */
            ASSERT_EQ(wire_add(w, WIRE_REPLY, NULL, 0), 0);
        } else if (i == 1) { /* more input than the window has room for */
            wire_begin(w, WIRE_REQUEST);
            wire_field(w, "verb", "exec");
            wire_field(w, "arg", "sleep");
            wire_field(w, "arg", "1000");
            ASSERT_EQ(wire_end(w), 0);
            for (int n = 0; n < 2 * WIRE_IN_WINDOW / 65536; n++)
                ASSERT_EQ(wire_add(w, WIRE_IN, (char[65536]){0}, 65536), 0);
        } else {
            ASSERT_EQ(wire_add(w, WIRE_REQUEST, "no field", 8), 0);
        }
        int rc = wire_flush_all(w, soon());
        EXPECT_TRUE(!rc || rc == -EPIPE || rc == -ECONNRESET);
        do
            rc = wire_recv(w, soon(), &f);
        while (!rc && f.kind != WIRE_ERROR); /* what comes before the end is of no interest */
        if (i == 2) {
            EXPECT_EQ(rc, 0);
            EXPECT_EQ(f.kind, WIRE_ERROR);
        } else {
            EXPECT_EQ(rc, -ECONNRESET);
        }
        test_agent_stop(a, pid);
    }
}

/** An agent whose guest has said @body in a message of @kind already. */
static struct agent *lying_agent(enum wire_kind kind, const void *body, size_t size)
{
    struct wire a, b;
    struct agent *agent;

    make_pair(&a, &b);
    ASSERT_EQ(wire_add(&a, kind, body, size), 0);
    ASSERT_EQ(wire_flush_all(&a, soon()), 0);
    ASSERT_EQ(shutdown(a.fd, SHUT_WR), 0);
    int keep = fcntl(a.fd, F_DUPFD_CLOEXEC, 3); /* until the test's process ends */
    wire_done(&a);
    ASSERT_TRUE(keep >= 0);
    ASSERT_EQ(agent_open(b.fd, &agent, NULL), 0);
    return agent;
}

TEST(a_guest_that_lies_is_not_believed)
{
    static const char text[] = "errno=2\0text=\x1b[2Jgone\n";
    struct error err = {0};
    struct agent *a = lying_agent(WIRE_ERROR, text, sizeof(text));

    EXPECT_EQ(agent_ping(a, soon(), &err), -ENOENT);
    EXPECT_STR(err.text, "?[2Jgone?");
    agent_close(a);

    a = lying_agent(WIRE_ERROR, "errno=0", 8);
    EXPECT_EQ(agent_ping(a, soon(), NULL), -EPROTO);
    agent_close(a);

    a = lying_agent(WIRE_OUT, "x", 1);
    EXPECT_EQ(agent_ping(a, soon(), NULL), -EPROTO);
    agent_close(a);

    a = lying_agent(WIRE_REPLY, "hostname", 8); /* neither = nor an end */
    struct agent_info *info = calloc(1, sizeof(*info));
    EXPECT_EQ(agent_get_info(a, soon(), info, NULL), -EPROTO);
    agent_close(a);

    free(info);
}

TEST(info_is_bounded)
{
    char body[40000];
    size_t n = 0;
    struct agent_info *info = calloc(1, sizeof(*info));

    for (int i = 0; i < 100; i++)
        n += (size_t)sprintf(body + n, "address=%0150d %0150d 1", i, i) + 1;
    n += (size_t)sprintf(body + n, "hostname=a\nb%0200d", 1) + 1;
    struct agent *a = lying_agent(WIRE_REPLY, body, n);
    ASSERT_EQ(agent_get_info(a, soon(), info, NULL), 0);
    EXPECT_EQ(info->address_count, AGENT_LIST_MAX);
    EXPECT_EQ(strlen(info->addresses[3].interface), AGENT_TEXT_MAX - 1);
    EXPECT_EQ(strlen(info->addresses[3].mac), sizeof(info->addresses[3].mac) - 1);
    EXPECT_STR(info->addresses[3].address, "1");
    EXPECT_EQ(strlen(info->hostname), AGENT_TEXT_MAX - 1);
    EXPECT_MEM(info->hostname, "a?b0", 4);
    agent_close(a);
    free(info);
}

struct device {
    int listener;
    const char *answer;
};

/** What virtio-vsock does with a client of the host's, answering the first one with nothing. */
static void *device_main(void *arg)
{
    const struct device *d = arg;
    char line[32] = "";

    for (int i = 0; i < 2; i++) {
        int fd = accept(d->listener, NULL, NULL);

        for (size_t n = 0; n < sizeof(line) - 1 && read(fd, line + n, 1) == 1; n++) {
            if (line[n] == '\n')
                break;
        }
        EXPECT_STR(line, "CONNECT 1024\n");
        if (i)
            EXPECT_EQ(send(fd, d->answer, strlen(d->answer), MSG_NOSIGNAL), strlen(d->answer));
        fd_close(fd);
    }
    return NULL;
}

TEST(connecting_tries_again_and_reads_no_more_than_the_greeting)
{
    char dir[] = "/tmp/posada-agent-test-XXXXXX";
    struct device d = {.answer = "OK 1073741824\n"};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct agent *a;
    struct error err = {0};
    pthread_t thread;

    ASSERT_TRUE(mkdtemp(dir));
    EXPECT_EQ(agent_connect(dir, soon(), &a, &err), -ENOENT);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/vsock.sock", dir);
    d.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(bind(d.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ASSERT_EQ(listen(d.listener, 8), 0);
    ASSERT_EQ(pthread_create(&thread, NULL, device_main, &d), 0);
    ASSERT_EQ(agent_connect(dir, soon(), &a, NULL), 0);
    EXPECT_EQ(agent_ping(a, soon(), NULL), -ECONNRESET);
    agent_close(a);
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    fd_close(d.listener);
    err = (struct error){0};
    EXPECT_EQ(agent_connect(dir, host_now_ns(), &a, &err), -ECONNREFUSED);
    (void)unlink(address.sun_path);
    (void)rmdir(dir);
}
