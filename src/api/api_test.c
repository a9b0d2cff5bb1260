/* Tests of the API: messages, calls, events, hostile peers. */
#include "api/api.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SECOND 1000000000LL

static struct loop *loop;
static struct api_server *server;
static char dir[160], path[256];

static void serve_echo(struct api_call *call, json_t *args, void *arg)
{
    api_reply(call, json_incref(args));
}

static void serve_fail(struct api_call *call, json_t *args, void *arg)
{
    struct error err = {0};

    (void)error_set(&err, ENOSPC, "no space");
    api_fail(call, &err);
}

static void serve_slow(struct api_call *call, json_t *args, void *arg)
{
    for (int i = 0; i < 3; i++)
        api_progress(call, json_pack("{s:i}", "step", i));
    api_reply(call, NULL);
}

static void serve_forever(struct api_call *call, json_t *args, void *arg)
{
    struct error err = {0};

    while (!api_call_is_gone(call))
        (void)usleep(1000);
    (void)error_set(&err, ECANCELED, "gone");
    api_fail(call, &err);
}

static void serve_stream(struct api_call *call, json_t *args, void *arg)
{
    cleanup(fd_closep) int fd = api_take_fd(call, NULL);

    if (fd >= 0)
        (void)!write(fd, "bytes", 5);
}

static const struct api_method methods[] = {
    {.name = "echo",    .fn = serve_echo},
    {.name = "fail",                 .fn = serve_fail},
    {.name = "slow",.fn = serve_slow, .may_wait = true},
    {.name = "forever",    .fn = serve_forever, .may_wait = true},
    {.name = "stream", .fn = serve_stream},
    {0},
};

static void begin(void)
{
    struct error err = {0};

    strcpy(dir, "/tmp/posada-api-XXXXXX");
    ASSERT_TRUE(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/sock", dir);
    loop = loop_new("test");
    ASSERT_TRUE(loop);
    ASSERT_EQ(api_server_new(loop, path, methods, NULL, &server, &err), 0);
    ASSERT_EQ(loop_start(loop), 0);
}

static void free_server(void *arg)
{
    api_server_free(server);
}

static void end(void)
{
    ASSERT_EQ(loop_post(loop, free_server, NULL), 0);
    loop_sync(loop);
    loop_free(loop);
    EXPECT_EQ(rmdir(dir), 0);
}

static struct api_client *open_client(void)
{
    struct error err = {0};
    struct api_client *c;

    ASSERT_EQ(api_client_open(path, &c, &err), 0);
    return c;
}

static int64_t soon(void)
{
    return host_now_ns() + 20 * SECOND;
}

TEST(messages_are_classified_and_rubbish_refused)
{
    static const struct {
        const char *line;
        int result;
        enum api_kind kind;
    } cases[] = {
        {"{\"id\":1,\"call\":\"x\"}",             0,       API_CALL    },
        {"{\"id\":1,\"call\":\"x\",\"args\":{}}", 0,       API_CALL    },
        {"{\"id\":1,\"result\":{}}",              0,       API_RESULT  },
        {"{\"id\":1,\"progress\":{}}",            0,       API_PROGRESS},
        {"{\"id\":1,\"error\":{}}",               0,       API_ERROR   },
        {"{\"event\":\"x\"}",                     0,       API_EVENT   },
        {"",                                      -EINVAL, 0           },
        {"1",                                     -EINVAL, 0           },
        {"[]",                                    -EINVAL, 0           },
        {"{}",                                    -EINVAL, 0           },
        {"{\"id\":-1,\"call\":\"x\"}",            -EINVAL, 0           },
        {"{\"id\":\"1\",\"call\":\"x\"}",         -EINVAL, 0           },
        {"{\"id\":1,\"call\":\"\"}",              -EINVAL, 0           },
        {"{\"id\":1,\"call\":\"x\",\"args\":[]}", -EINVAL, 0           },
        {"{\"id\":1,\"id\":2,\"call\":\"x\"}",    -EINVAL, 0           },
        {"{\"id\":1,\"call\":\"x\"} x",           -EINVAL, 0           },
        {"{\"id\":1,\"call\":\"\\ud800\"}",       -EINVAL, 0           },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct api_message m;
        struct error err = {0};
        int r = api_parse(cases[i].line, strlen(cases[i].line), &m, &err);

        if (EXPECT_EQ(r, cases[i].result) && !r) {
            EXPECT_EQ(m.kind, cases[i].kind);
            api_message_done(&m);
        }
    }
}

TEST(a_call_is_answered)
{
    begin();
    struct api_client *c = open_client();
    struct error err = {0};
    json_t *result;

    for (int i = 0; i < 100; i++) {
        ASSERT_EQ(api_client_call(c, "echo", json_pack("{s:i}", "n", i), soon(), NULL, NULL,
                                  &result, &err),
                  0);
        EXPECT_EQ(json_integer_value(json_object_get(result, "n")), i);
        json_decref(result);
    }
    EXPECT_EQ(api_client_call(c, "fail", NULL, soon(), NULL, NULL, NULL, &err), -ENOSPC);
    EXPECT_STR(err.text, "no space");
    err = (struct error){0};
    EXPECT_EQ(api_client_call(c, "nosuch", NULL, soon(), NULL, NULL, NULL, &err), -ENOSYS);
    api_client_close(c);
    end();
}

static void count_step(json_t *p, void *arg)
{
    *(int *)arg += json_integer_value(json_object_get(p, "step")) == *(int *)arg;
}

TEST(progress_comes_in_order_before_the_result)
{
    begin();
    struct api_client *c = open_client();
    struct error err = {0};
    int steps = 0;

    EXPECT_EQ(api_client_call(c, "slow", NULL, soon(), count_step, &steps, NULL, &err), 0);
    EXPECT_EQ(steps, 3);
    api_client_close(c);
    end();
}

TEST(large_messages_pass_and_larger_ones_do_not)
{
    begin();
    struct api_client *c = open_client();
    struct error err = {0};
    json_t *result;
    size_t size = API_LINE_MAX - 200;
    cleanup(freep) char *text = malloc(API_LINE_MAX + 2);

    memset(text, 'x', API_LINE_MAX + 1);
    text[size] = 0;
    ASSERT_EQ(api_client_call(c, "echo", json_pack("{s:s}", "t", text), soon(), NULL, NULL, &result,
                              &err),
              0);
    EXPECT_EQ(json_string_length(json_object_get(result, "t")), size);
    json_decref(result);
    text[size] = 'x';
    text[API_LINE_MAX + 1] = 0;
    EXPECT_EQ(
        api_client_call(c, "echo", json_pack("{s:s}", "t", text), soon(), NULL, NULL, NULL, &err),
        -E2BIG);
    api_client_close(c);
    end();
}

TEST(events_go_to_who_asked)
{
    begin();
    struct api_client *c = open_client();
    struct api_client *deaf = open_client();
    struct error err = {0};
    struct api_message m;

    ASSERT_EQ(api_client_call(c, "events", NULL, soon(), NULL, NULL, NULL, &err), 0);
    ASSERT_EQ(api_client_call(deaf, "echo", NULL, soon(), NULL, NULL, NULL, &err), 0);
    api_server_event(server, "started", json_pack("{s:i}", "n", 7));
    ASSERT_EQ(api_client_receive(c, soon(), &m, &err), 0);
    EXPECT_EQ(m.kind, API_EVENT);
    EXPECT_STR(m.name, "started");
    EXPECT_EQ(json_integer_value(json_object_get(m.body, "n")), 7);
    api_message_done(&m);
    EXPECT_EQ(api_client_receive(deaf, host_now_ns() + SECOND / 20, &m, &err), -ETIMEDOUT);
    api_client_close(c);
    api_client_close(deaf);
    end();
}

TEST(who_leaves_ends_what_waits_for_him)
{
    begin();
    struct api_client *c = open_client();
    struct error err = {0};

    ASSERT_EQ(api_client_send(c, "forever", NULL, NULL, &err), 0);
    EXPECT_EQ(api_client_call(c, "echo", NULL, soon(), NULL, NULL, NULL, &err), 0);
    api_client_close(c);
    end(); /* joins its thread */
}

TEST(a_server_that_ends_ends_its_calls)
{
    begin();
    struct api_client *c = open_client();
    struct error err = {0};
    struct api_message m;

    ASSERT_EQ(api_client_send(c, "forever", NULL, NULL, &err), 0);
    ASSERT_EQ(api_client_call(c, "echo", NULL, soon(), NULL, NULL, NULL, &err), 0);
    end();
    int r = api_client_receive(c, soon(), &m, &err);
    if (!r) {
        EXPECT_EQ(m.kind, API_ERROR);
        api_message_done(&m);
        r = api_client_receive(c, soon(), &m, &err);
    }
    EXPECT_EQ(r, -ECONNRESET);
    api_client_close(c);
}

TEST(a_connection_is_handed_over)
{
    begin();
    struct api_client *c = open_client();
    struct error err = {0};
    char buf[8] = "";

    ASSERT_EQ(api_client_call(c, "stream", NULL, soon(), NULL, NULL, NULL, &err), 0);
    cleanup(fd_closep) int fd = api_client_take_fd(c);
    ASSERT_EQ(fd_read_all(fd, buf, 5), 0);
    EXPECT_STR(buf, "bytes");
    end();
}

/** A raw connection. */
static int open_raw(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(addr.sun_path, path);
    ASSERT_EQ(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

TEST(hostile_clients_are_answered_or_cut_off)
{
    begin();
    cleanup(fd_closep) int fd = open_raw();
    char buf[4096];
    cleanup(freep) char *junk = malloc(3 * API_LINE_MAX);

    ASSERT_EQ(fd_write_all(fd, "junk\n{\"id\":5,\"result\":{}}\n", 27), 0);
    ssize_t n = read(fd, buf, sizeof(buf) - 1);
    ASSERT_TRUE(n > 0);
    buf[n] = 0;
    EXPECT_TRUE(strstr(buf, "EINVAL") != NULL);
    memset(junk, 'x', 3 * API_LINE_MAX); /* a line without end */
    while (n > 0) {
        n = send(fd, junk, 3 * API_LINE_MAX, MSG_NOSIGNAL);
        if (n > 0 && read(fd, buf, sizeof(buf)) == 0)
            n = 0;
    }
    struct api_client *c = open_client();
    struct error err = {0};
    EXPECT_EQ(api_client_call(c, "echo", NULL, soon(), NULL, NULL, NULL, &err), 0);
    api_client_close(c);
    end();
}

TEST(who_asks_and_does_not_read_is_cut_off)
{
    begin();
    cleanup(fd_closep) int fd = open_raw();
    size_t size = API_LINE_MAX / 2;
    cleanup(freep) char *line = malloc(size + 64);
    ssize_t n = 1;

    int head = snprintf(line, size, "{\"id\":1,\"call\":\"echo\",\"args\":{\"t\":\"");
    memset(line + head, 'x', size);
    memcpy(line + size, "\"}}\n", 5);
    for (int i = 0; i < 100 && n > 0; i++)
        n = send(fd, line, size + 4, MSG_NOSIGNAL);
    EXPECT_TRUE(n < 0);
    end();
}

TEST(errors_are_told_by_name)
{
    struct error err = {0}, got = {0};
    (void)error_set(&err, ETIMEDOUT, "late");
    struct api_message m = {.kind = API_ERROR, .body = api_error_json(&err)};

    EXPECT_EQ(api_error_of(&m, &got), -ETIMEDOUT);
    EXPECT_STR(got.text, "late");
    json_decref(m.body);
}

TEST(a_path_longer_than_an_address_is_served)
{
    struct error err = {0};
    char deep[200] = "/tmp/posada-api-XXXXXX";
    char word[120];

    ASSERT_TRUE(mkdtemp(deep));
    memset(word, 'd', sizeof(word) - 1);
    word[sizeof(word) - 1] = 0;
    size_t base = strlen(deep);
    (void)snprintf(deep + base, sizeof(deep) - base, "/%s", word);
    ASSERT_EQ(mkdir(deep, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/sock", deep);
    loop = loop_new("test");
    ASSERT_EQ(api_server_new(loop, path, methods, NULL, &server, &err), 0);
    ASSERT_EQ(loop_start(loop), 0);
    struct api_client *c = open_client();
    EXPECT_EQ(api_client_call(c, "echo", NULL, soon(), NULL, NULL, NULL, &err), 0);
    api_client_close(c);
    strcpy(dir, deep);
    end();
    deep[base] = 0;
    EXPECT_EQ(rmdir(deep), 0);
}
