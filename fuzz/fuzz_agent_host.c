/* The host's side of the agent with a guest that says anything: answers, program output, trees.
 * First byte: which verb; the rest is what the guest sends. What a tree makes stays within a folder
 * of its own: beside it lies a file that must not change. */
#include "agent/agent.h"
#include "base/clock.h"
#include "base/fd.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SENT_MAX = 100 << 10 }; /* what a socket holds */

static char root[] = "/tmp/posada-fuzz-agent-XXXXXX";
static char inside[64];
static int null_fd;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path) && chmod(path, 0700) && remove(path);
}

static void empty_root(void)
{
    struct stat st;

    (void)nftw(inside, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* what stays is seen below */
    (void)rmdir(inside);
    assert(!mkdir(inside, 0700));
    char guard[64];
    (void)snprintf(guard, sizeof(guard), "%s/guard", root);
    assert(!lstat(guard, &st) && S_ISREG(st.st_mode) && st.st_size == 1);
    assert(!lstat(root, &st) && st.st_nlink == 3); /* no folder beside it */
}

static void init(void)
{
    char guard[64];

    assert(mkdtemp(root));
    (void)snprintf(inside, sizeof(inside), "%s/in", root);
    (void)snprintf(guard, sizeof(guard), "%s/guard", root);
    int fd = open(guard, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert(!fd_write_all(fd, "x", 1));
    fd_close(fd);
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert(!mkdir(inside, 0700));
}

static void ask(struct agent *a, unsigned verb)
{
    static struct agent_info info;
    static const struct tree_options copy = {.silence_ms = 1000, .max_bytes = 1 << 20};
    const char *const argv[] = {"x", NULL};
    const struct agent_exec e = {.argv = argv};
    const struct agent_streams s = {
        .in_fd = null_fd, .out_fd = null_fd, .err_fd = null_fd, .event_fd = -1};
    int64_t soon = host_now_ns() + 1000000000;
    struct error err = {0};
    struct tree_result result;
    struct agent_exit x;
    unsigned count;
    int rc;

    if (verb == 0) {
        rc = agent_get_info(a, soon, &info, &err);
    } else if (verb == 1) {
        rc = agent_exec_start(a, &e, soon, &err);
        if (!rc)
            rc = agent_exec_run(a, &s, &x, &err);
        assert(rc || (x.value >= 0 && x.value < 256));
    } else if (verb == 2) {
        rc = agent_freeze(a, 1000, soon, &count, &err);
    } else if (verb == 3) {
        rc = agent_put(a, root, "/x", &copy, &result, &err);
    } else {
        rc = agent_get(a, "/x", inside, &copy, &result, &err);
        empty_root();
    }
    assert(!rc == !err.code); /* a failure has its sentence */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct agent *a;
    int pair[2];

    if (!inside[0])
        init();
    if (!size || size > SENT_MAX)
        return 0;
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    assert(!agent_open(pair[0], &a, NULL));
    assert(send(pair[1], data + 1, size - 1, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size - 1);
    (void)shutdown(pair[1], SHUT_WR);
    ask(a, data[0] % 8);
    agent_close(a);
    fd_close(pair[1]);
    return 0;
}
