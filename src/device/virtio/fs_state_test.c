/* Saved state of the shared folder's server: numbers mean the same files afterwards, and never one
 * outside. */
#include "base/fd.h"
#include "base/test.h"
#include "device/virtio/fs_internal.h"
#include "state/test_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[] = "/tmp/posada-fs-state-XXXXXX";
static struct error err;

static const char *host(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void host_file(const char *name, const char *text)
{
    FILE *f = fopen(host(name), "w");

    ASSERT_TRUE(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void clean_up(void)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    EXPECT_EQ(system(command), 0);
}

static struct fs_server *new_server(bool readonly)
{
    struct fs_server *s = NULL;
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fs_server_new(fd, readonly, &s, &err), 0);
    return s;
}

static void begin(void)
{
    ASSERT_TRUE(mkdtemp(folder));
    (void)atexit(clean_up);
    ASSERT_TRUE(mkdir(host("sub"), 0755) == 0 && mkdir(host("sub/deep"), 0755) == 0);
    host_file("sub/deep/file", "content");
    host_file("gone", "x");
}

static uint64_t lookup(struct fs_server *s, uint64_t parent, const char *name)
{
    struct fuse_entry_out out = {0};
    struct fs_inode *p = NULL;

    ASSERT_EQ(fs_inode_get(s, parent, &p), 0);
    EXPECT_EQ(fs_lookup(s, p, name, &out), 0);
    fs_inode_put(s, p);
    return out.nodeid;
}

static struct state_in *save(struct fs_server *s)
{
    struct state_out *out = state_out_new();

    state_begin(out, "fs", 0, 1);
    if (fs_server_save(s, out, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    state_end(out);
    return test_state_turn(out);
}

static int load(struct fs_server *s, const struct state_in *in)
{
    const struct state_section *section = NULL;

    err = (struct error){0};
    ASSERT_EQ(state_find(in, "fs", 0, 1, &section, &err), 0);
    int rc = fs_server_load(s, section, &err);
    return rc ? rc : state_check_all_read(section, &err);
}

TEST(numbers_mean_the_same_files)
{
    struct fs_inode *i = NULL;
    uint64_t handle = 0;
    char buf[16] = "";

    begin();
    struct fs_server *a = new_server(false);
    uint64_t gone = lookup(a, FUSE_ROOT_ID, "gone");
    uint64_t sub = lookup(a, FUSE_ROOT_ID, "sub");
    uint64_t deep = lookup(a, sub, "deep");
    uint64_t file = lookup(a, deep, "file");
    ASSERT_EQ(fs_handle_new(a, open(host("sub/deep/file"), O_RDWR | O_APPEND | O_CLOEXEC), false,
                            &handle),
              0);
    fs_forget(a, sub, 1); /* the guest may forget a folder and keep what is in it */
    struct state_in *in = save(a);
    fs_server_free(a);
    ASSERT_EQ(unlink(host("gone")), 0);
    struct fs_server *b = new_server(false);
    ASSERT_EQ(load(b, in), 0);
    EXPECT_EQ(fs_inode_get(b, gone, &i), -ESTALE);
    EXPECT_EQ(fs_inode_get(b, sub, &i), -ESTALE);
    ASSERT_EQ(fs_inode_get(b, file, &i), 0);
    fs_inode_put(b, i);
    EXPECT_EQ(lookup(b, deep, "file"), file); /* found again by its name */
    struct fs_handle *h = fs_handle_get(b, handle, false);
    ASSERT_TRUE(h);
    EXPECT_EQ(pread(h->fd, buf, sizeof(buf), 0), 7);
    EXPECT_STR(buf, "content");
    EXPECT_TRUE((fcntl(h->fd, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_RDWR | O_APPEND));
    fs_handle_put(b, h);
    uint64_t other = lookup(b, FUSE_ROOT_ID, "sub");
    EXPECT_TRUE(other != deep && other != file && other != gone &&
                other != sub); /* numbers are not used twice */
    EXPECT_EQ(fs_handle_close(b, handle, false), 0);
    fs_forget(b, file, 2);
    EXPECT_EQ(fs_inode_get(b, file, &i), -ESTALE);
    fs_server_free(b);
    state_in_free(in);
}

static struct state_in *forged(const char *path, uint16_t type, uint64_t id, uint32_t flags)
{
    struct state_out *out = state_out_new();
    uint8_t inode[64] = {0};
    uint8_t handle[64] = {0};
    size_t n = strlen(path);

    store_le64(inode, id);
    store_le64(inode + 8, 1);
    store_le16(inode + 16, type);
    store_le16(inode + 18, (uint16_t)n);
    memcpy(inode + 20, path, n);
    store_le64(handle, 5);
    store_le32(handle + 8, flags);
    store_le16(handle + 21, (uint16_t)n);
    memcpy(handle + 23, path, n);
    state_begin(out, "fs", 0, 1);
    state_put_u64(out, "started", 1);
    state_put_u64(out, "kill_privileges", 0);
    state_put_u64(out, "inode_generation", 1);
    state_put_u64(out, "handle_generation", 1);
    state_put_bytes(out, "inodes", inode, 20 + n);
    state_put_bytes(out, "handles", handle, 23 + n);
    state_end(out);
    return test_state_turn(out);
}

TEST(nothing_outside_is_reached)
{
    static const char *const paths[] = {"../../etc/passwd", "/etc/passwd", "way/passwd",
                                        "sub/../../..", "."};
    struct fs_inode *i = NULL;

    begin();
    ASSERT_EQ(symlink("/etc", host("way")), 0);
    for (size_t n = 0; n < ARRAY_SIZE(paths); n++) {
        struct fs_server *s = new_server(false);
        struct state_in *in = forged(paths[n], S_IFREG >> 0 & 0xffff, 7, O_RDONLY);

        EXPECT_EQ(load(s, in), 0);
        EXPECT_EQ(fs_inode_get(s, 7, &i), -ESTALE);
        EXPECT_TRUE(!fs_handle_get(s, 5, false));
        fs_server_free(s);
        state_in_free(in);
    }
}

TEST(impossible_states_are_refused)
{
    begin();
    struct fs_server *s = new_server(true);
    struct state_in *in = forged("gone", S_IFREG & 0xffff, 7, O_RDWR);
    EXPECT_EQ(load(s, in), -EINVAL);
    EXPECT_STR(err.text,
               "saved state of fs 0: a file open for writing in a folder that is read-only");
    fs_server_free(s);
    state_in_free(in);
    s = new_server(false);
    in = forged("gone", S_IFREG & 0xffff, FUSE_ROOT_ID, O_RDONLY); /* the root's number */
    EXPECT_EQ(load(s, in), -EINVAL);
    fs_server_free(s);
    state_in_free(in);
    s = new_server(false);
    in = forged("gone", S_IFREG & 0xffff, 0xfffffff0, O_RDONLY); /* a table of that size */
    EXPECT_EQ(load(s, in), -EINVAL);
    fs_server_free(s);
    state_in_free(in);
}
