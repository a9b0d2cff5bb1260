/* Both ends of the agent: copying trees, and what a hostile end may try with them. */
#include "agent/test_agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char root[64]; /* a folder of each test's own */

static const char *at(const char *name)
{
    static char paths[8][256];
    static unsigned i;
    char *p = paths[i++ % ARRAY_SIZE(paths)];

    (void)snprintf(p, sizeof(paths[0]), "%s/%s", root, name);
    return p;
}

static void make_root(void)
{
    (void)snprintf(root, sizeof(root), "/tmp/posada-copy-test-XXXXXX");
    ASSERT_TRUE(mkdtemp(root));
    ASSERT_EQ(mkdir(at("out"), 0755), 0);
}

static void remove_root(void)
{
    char command[256];

    (void)snprintf(command, sizeof(command), "chmod -R u+rwx '%s'; rm -rf '%s'", root, root);
    EXPECT_EQ(system(command), 0);
}

static void put_file(const char *name, const char *text, unsigned mode)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fd_write_all(fd, text, strlen(text)), 0);
    ASSERT_EQ(fchmod(fd, mode), 0);
    fd_close(fd);
}

static const char *text_of(const char *name)
{
    int fd = open(at(name), O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    const char *text = test_text(fd);
    fd_close(fd);
    return text;
}

static unsigned mode_of(const char *name)
{
    struct stat st = {0};

    (void)lstat(at(name), &st); /* else 0 */
    return st.st_mode;
}

/** A tree with all that there may be. */
static void make_tree(void)
{
    struct timespec times[2] = {
        {.tv_sec = 1          },
        { .tv_sec = 1234567890, .tv_nsec = 987654321}
    };

    make_root();
    ASSERT_EQ(mkdir(at("src"), 0755), 0);
    ASSERT_EQ(mkdir(at("src/empty"), 0700), 0);
    ASSERT_EQ(mkdir(at("src/a"), 0755), 0);
    ASSERT_EQ(mkdir(at("src/a/b"), 0755), 0);
    put_file("src/a/b/deep", "deep\n", 0600);
    put_file("src/run", "#!/bin/sh\n", 0755);
    put_file("src/none", "", 0644);
    put_file("src/odd\nname=\\ \"x\"", "odd\n", 0644);
    put_file("src/setuid", "x", 04755);
    ASSERT_EQ(symlink("a/b/deep", at("src/link")), 0);
    ASSERT_EQ(symlink("/no/such/place", at("src/dangling")), 0);
    ASSERT_EQ(mkfifo(at("src/pipe"), 0644), 0);
    ASSERT_EQ(utimensat(AT_FDCWD, at("src/run"), times, 0), 0);
    ASSERT_EQ(utimensat(AT_FDCWD, at("src/empty"), times, 0), 0);
    ASSERT_EQ(truncate(at("src/none"), 5 << 20), 0); /* all of it a hole */
    int fd = open(at("src/none"), O_WRONLY | O_CLOEXEC);
    ASSERT_EQ(fd_pwrite_all(fd, "middle", 6, 3 << 20), 0);
    fd_close(fd);
}

static void check_tree(const char *name)
{
    char path[128], buf[PATH_MAX];
    struct stat st;
    static const struct {
        const char *name, *text;
        unsigned mode;
    } files[] = {
        {"a/b/deep",           "deep\n",      S_IFREG | 0600},
        {"run",                "#!/bin/sh\n", S_IFREG | 0755},
        {"odd\nname=\\ \"x\"", "odd\n",       S_IFREG | 0644},
        {"setuid",             "x",           S_IFREG | 0755}, /* not of its owner's power */
        {"empty",              NULL,          S_IFDIR | 0700},
        {"a/b",                NULL,          S_IFDIR | 0755},
    };

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", name, files[i].name);
        EXPECT_EQ(mode_of(path), files[i].mode);
        if (files[i].text)
            EXPECT_STR(text_of(path), files[i].text);
    }
    for (const char *const *p = (const char *const[]){"run", "empty", NULL}; *p; p++) {
        (void)snprintf(path, sizeof(path), "%s/%s", name, *p);
        ASSERT_EQ(lstat(at(path), &st), 0);
        EXPECT_EQ(st.st_mtim.tv_sec, 1234567890);
        EXPECT_EQ(st.st_mtim.tv_nsec, 987654321);
    }
    (void)snprintf(path, sizeof(path), "%s/dangling", name);
    ssize_t n = readlink(at(path), buf, sizeof(buf) - 1);
    buf[MAX(n, (ssize_t)0)] = '\0';
    EXPECT_STR(buf, "/no/such/place");
    (void)snprintf(path, sizeof(path), "%s/pipe", name);
    EXPECT_EQ(mode_of(path), 0);
    (void)snprintf(path, sizeof(path), "%s/none", name);
    ASSERT_EQ(lstat(at(path), &st), 0);
    EXPECT_EQ(st.st_size, 5 << 20);
    EXPECT_TRUE(st.st_blocks * 512 < 1 << 20);
    int fd = open(at(path), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(fd_pread_all(fd, buf, 8, (3 << 20) - 1), 0);
    EXPECT_MEM(buf, "\0middle", 8);
    fd_close(fd);
}

TEST(a_tree_goes_there_and_back)
{
    struct tree_result result;
    struct agent *a;
    pid_t pid = test_agent_start(&a);

    make_tree();
    ASSERT_EQ(agent_put(a, at("src"), at("out"), &test_copy, &result, NULL), 0); /* into it */
    EXPECT_EQ(result.entries, 11);
    EXPECT_EQ(result.left_out, 1);
    check_tree("out/src");
    ASSERT_EQ(agent_get(a, at("out/src"), at("back"), &test_copy, &result, NULL), 0); /* as it */
    check_tree("back");
    ASSERT_EQ(agent_get(a, at("out/src/"), at("out"), &test_copy, &result, NULL), 0); /* again */
    check_tree("out/src");
    EXPECT_EQ(agent_ping(a, soon(), NULL), 0);
    test_agent_stop(a, pid);
    remove_root();
}

TEST(owners_are_kept_if_asked_for)
{
    struct tree_options o = {.silence_ms = 60000, .keep_owners = true};
    struct tree_result result;
    struct stat st;
    struct agent *a;

    if (geteuid())
        test_skip("only root can give files away");
    pid_t pid = test_agent_start(&a);
    make_root();
    put_file("file", "x", 0644);
    ASSERT_EQ(chown(at("file"), 12345, 54321), 0);
    ASSERT_EQ(chmod(at("file"), 04711), 0);
    ASSERT_EQ(agent_put(a, at("file"), at("out"), &o, &result, NULL), 0);
    ASSERT_EQ(agent_get(a, at("out/file"), at("back"), &o, &result, NULL), 0);
    for (const char *const *p = (const char *const[]){"out/file", "back", NULL}; *p; p++) {
        ASSERT_EQ(stat(at(*p), &st), 0);
        EXPECT_EQ(st.st_uid, 12345);
        EXPECT_EQ(st.st_gid, 54321);
        EXPECT_EQ(st.st_mode, S_IFREG | 04711);
    }
    test_agent_stop(a, pid);
    remove_root();
}

TEST(files_are_replaced_whole_and_links_not_followed)
{
    struct tree_result result;
    struct agent *a;
    pid_t pid = test_agent_start(&a);

    make_root();
    put_file("precious", "precious\n", 0644);
    put_file("new", "new\n", 0644);
    put_file("out/new", "old\n", 0600);
    ASSERT_EQ(agent_put(a, at("new"), at("out/new"), &test_copy, &result, NULL), 0);
    EXPECT_STR(text_of("out/new"), "new\n");
    EXPECT_EQ(unlink(at("out/new")), 0);
    /* Within a folder a link is replaced; as the target it is what the user means. */
    ASSERT_EQ(symlink(at("precious"), at("out/new")), 0);
    ASSERT_EQ(agent_put(a, at("new"), at("out"), &test_copy, &result, NULL), 0);
    EXPECT_STR(text_of("precious"), "precious\n");
    EXPECT_EQ(mode_of("out/new") & S_IFMT, S_IFREG);
    EXPECT_EQ(unlink(at("out/new")), 0);
    ASSERT_EQ(symlink(at("precious"), at("out/new")), 0);
    ASSERT_EQ(agent_put(a, at("new"), at("out/new"), &test_copy, &result, NULL), 0);
    EXPECT_STR(text_of("precious"), "new\n");
    EXPECT_EQ(mode_of("out/new") & S_IFMT, S_IFLNK);
    test_agent_stop(a, pid);
    remove_root();
}

TEST(what_cannot_be_copied_says_why_and_the_session_goes_on)
{
    struct tree_result result;
    struct tree_options small = {.silence_ms = 60000, .max_bytes = 10};
    struct error err = {0};
    struct agent *a;
    pid_t pid = test_agent_start(&a);

    make_tree();
    EXPECT_EQ(agent_get(a, "/no/such", at("out"), &test_copy, &result, &err), -ENOENT);
    EXPECT_STR(err.text, "cannot open '/no/such': No such file or directory");
    err = (struct error){0};
    EXPECT_EQ(agent_put(a, at("src"), "/no/such/place", &test_copy, &result, &err), -ENOENT);
    EXPECT_STR(err.text, "cannot open folder '/no/such/': No such file or directory");
    err = (struct error){0};
    EXPECT_EQ(agent_put(a, at("src/run"), "/dev/null", &test_copy, &result, &err), -EINVAL);
    EXPECT_STR(err.text, "'/dev/null' is neither a file nor a folder");
    /* In the middle of a tree. */
    ASSERT_EQ(mkdir(at("out/src"), 0755), 0);
    ASSERT_EQ(mkdir(at("out/src/run"), 0755), 0);
    err = (struct error){0};
    EXPECT_EQ(agent_put(a, at("src"), at("out"), &test_copy, &result, &err), -EEXIST);
    EXPECT_STR(err.text, "cannot replace 'run', which is no file");
    test_agent_stop(a, pid);
    pid = test_agent_start(&a);
    err = (struct error){0};
    EXPECT_EQ(agent_get(a, at("src/a"), at("limited"), &small, &result, &err), 0);
    EXPECT_EQ(agent_get(a, at("src"), at("limited"), &small, &result, &err), -EFBIG);
    test_agent_stop(a, pid);
    remove_root();
}

TEST(an_interrupted_file_leaves_nothing)
{
    struct agent *a;
    pid_t pid = test_agent_start(&a);
    struct wire *w = agent_wire(a);
    struct wire_frame f;

    make_root();
    wire_begin(w, WIRE_REQUEST);
    wire_field(w, "verb", "put");
    wire_field(w, "path", at("out"));
    wire_field(w, "name", "file");
    ASSERT_EQ(wire_end(w), 0);
    wire_begin(w, WIRE_ENTRY);
    wire_field(w, "type", "file");
    wire_field(w, "name", "x");
    ASSERT_EQ(wire_end(w), 0);
    ASSERT_EQ(wire_add(w, WIRE_DATA, "half", 4), 0);
    ASSERT_EQ(wire_flush_all(w, soon()), 0);
    ASSERT_EQ(wire_recv(w, soon(), &f), 0);
    EXPECT_EQ(f.kind, WIRE_REPLY);
    test_agent_stop(a, pid);
    EXPECT_EQ(rmdir(at("out")), 0); /* it is empty */
    remove_root();
}

/** What a hostile guest sends when it is asked for a tree: @n entries of type and name, with a
 * target for links; the type "end" is the end of a folder. */
struct hostile {
    const char *type, *name, *target;
};

static int receive_hostile(const struct hostile *h, size_t n, struct error *err)
{
    struct tree_target t;
    struct tree_result result;
    struct wire from, to;
    int pair[2];

    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    wire_init(&from, pair[0]);
    wire_init(&to, pair[1]);
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(h[i].type, "end")) {
            ASSERT_EQ(wire_add(&from, WIRE_END, NULL, 0), 0);
            continue;
        }
        wire_begin(&from, WIRE_ENTRY);
        wire_field(&from, "type", h[i].type);
        wire_field(&from, "name", h[i].name);
        if (h[i].target)
            wire_field(&from, "target", h[i].target);
        ASSERT_EQ(wire_end(&from), 0);
    }
    ASSERT_EQ(wire_flush_all(&from, soon()), 0);
    wire_done(&from);
    ASSERT_EQ(tree_target_open(&t, at("out"), "top", NULL), 0);
    int rc = tree_receive(&to, &t, &test_copy, &result, err);
    tree_target_close(&t);
    wire_done(&to);
    return rc;
}

TEST(nothing_leads_out_of_the_target)
{
    static const char *const names[] = {"..", ".", "", "a/b", "/etc/passwd", "../evil"};
    struct error err;

    make_root();
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const struct hostile h[] = {
            {"folder", "x",      NULL},
            {"file",   names[i], NULL},
            {"end",    NULL,     NULL},
            {"end",    NULL,     NULL}
        };

        err = (struct error){0};
        EXPECT_EQ(receive_hostile(h, ARRAY_SIZE(h), &err), -EPROTO);
    }
    /* A link to elsewhere, and then a folder of that name, to write into. */
    const struct hostile through[] = {
        {"folder", "x",    NULL},
        {"link",   "evil", root},
        {"folder", "evil", NULL},
        {"file",   "y",    NULL},
        {"end",    NULL,   NULL}
    };
    err = (struct error){0};
    EXPECT_EQ(receive_hostile(through, ARRAY_SIZE(through), &err), -ENOTDIR);
    /* Ends of more than was begun; what is behind the end is not looked at. */
    const struct hostile ends[] = {
        {"end", NULL, NULL}
    };
    EXPECT_EQ(receive_hostile(ends, ARRAY_SIZE(ends), NULL), -EPROTO);
    const struct hostile two_files[] = {
        {"file", "x", NULL},
        {"file", "y", NULL}
    };
    EXPECT_EQ(receive_hostile(two_files, ARRAY_SIZE(two_files), NULL), -EPROTO);
    EXPECT_EQ(mode_of("evil"), 0);
    EXPECT_EQ(mode_of("y"), 0);
    remove_root();
}

TEST(folders_without_end_are_refused)
{
    struct hostile h[TREE_NESTING_MAX + 8];

    make_root();
    for (size_t i = 0; i < ARRAY_SIZE(h); i++)
        h[i] = (struct hostile){"folder", "d", NULL};
    EXPECT_EQ(receive_hostile(h, ARRAY_SIZE(h), NULL), -EPROTO);
    remove_root();
}
