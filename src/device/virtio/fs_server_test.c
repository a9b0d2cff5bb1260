/* The shared folder's FUSE server, by requests made by hand. Protocol: <linux/fuse.h>. */
#include "base/fd.h"
#include "base/test.h"
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[] = "/tmp/posada-fs-test-XXXXXX";
static struct fs_server *server;
static struct fs_work work;
static uint8_t reply[FS_MAX_WRITE + 4096];
static size_t reply_size; /* without the header */

static void open_server(bool readonly)
{
    int fd = open(folder, O_PATH | O_DIRECTORY);

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fs_server_new(fd, readonly, &server, NULL), 0);
}

/** Send a request of a header, @args and @more; the answer without its header is in `reply`. */
static int call(uint32_t opcode, uint64_t node, const void *args, size_t size, const void *more,
                size_t more_size)
{
    struct fuse_in_header head = {
        .len = (uint32_t)(sizeof(head) + size + more_size),
        .opcode = opcode,
        .unique = 77,
        .nodeid = node,
        .uid = geteuid(),
        .gid = getegid(),
    };
    struct iovec in[3] = {
        {.iov_base = &head,        .iov_len = sizeof(head)},
        {.iov_base = (void *)args, .iov_len = size        },
        {.iov_base = (void *)more, .iov_len = more_size   },
    };
    struct fuse_out_header out;
    struct iovec room[2] = {
        {.iov_base = &out,  .iov_len = sizeof(out)  },
        {.iov_base = reply, .iov_len = sizeof(reply)},
    };
    size_t n = fs_serve(server, &work, in, 3, room, 2);

    if (!n)
        return 1; /* no answer */
    EXPECT_EQ(out.unique, 77);
    EXPECT_EQ(out.len, n);
    reply_size = n - sizeof(out);
    return out.error;
}

static int call_name(uint32_t opcode, uint64_t node, const void *args, size_t size,
                     const char *name)
{
    return call(opcode, node, args, size, name, strlen(name) + 1);
}

static void init(void)
{
    struct fuse_init_in in = {.major = 7, .minor = 38, .max_readahead = 131072, .flags = ~0u};
    const struct fuse_init_out *out = (const void *)reply;

    ASSERT_EQ(call(FUSE_INIT, 0, &in, sizeof(in), NULL, 0), 0);
    EXPECT_EQ(out->major, 7);
    EXPECT_EQ(out->max_write, FS_MAX_WRITE);
    EXPECT_EQ(out->flags & FUSE_WRITEBACK_CACHE, 0);
}

static void begin(bool readonly)
{
    ASSERT_TRUE(mkdtemp(folder));
    (void)umask(0);
    open_server(readonly);
    init();
}

static void end(void)
{
    char command[128];

    fs_server_free(server);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    EXPECT_EQ(system(command), 0);
}

static char *host(const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void host_file(const char *name, const char *text)
{
    int fd = open(host(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

    ASSERT_TRUE(fd >= 0 && !fd_write_all(fd, text, strlen(text)));
    close(fd);
}

static struct fuse_entry_out *entry(void)
{
    return (struct fuse_entry_out *)(void *)reply;
}

/** The node of @name, or 0 with the error expected. */
static uint64_t lookup(uint64_t dir, const char *name, int error)
{
    int rc = call_name(FUSE_LOOKUP, dir, NULL, 0, name);

    EXPECT_EQ(rc, error);
    return rc ? 0 : entry()->nodeid;
}

static uint64_t open_node(uint64_t node, uint32_t flags, int error)
{
    struct fuse_open_in in = {.flags = flags};
    int rc = call(FUSE_OPEN, node, &in, sizeof(in), NULL, 0);

    EXPECT_EQ(rc, error);
    return rc ? 0 : ((struct fuse_open_out *)(void *)reply)->fh;
}

static int read_file(uint64_t fh, uint64_t offset, uint32_t size)
{
    struct fuse_read_in in = {.fh = fh, .offset = offset, .size = size};

    return call(FUSE_READ, 1, &in, sizeof(in), NULL, 0);
}

static int write_file(uint64_t fh, uint64_t offset, const void *data, uint32_t size)
{
    struct fuse_write_in in = {.fh = fh, .offset = offset, .size = size};

    return call(FUSE_WRITE, 1, &in, sizeof(in), data, size);
}

TEST(nothing_runs_before_init)
{
    ASSERT_TRUE(mkdtemp(folder));
    open_server(false);
    EXPECT_EQ(call_name(FUSE_LOOKUP, 1, NULL, 0, "x"), -EIO);
    struct fuse_init_in old = {.major = 7, .minor = 12};
    EXPECT_EQ(call(FUSE_INIT, 0, &old, sizeof(old), NULL, 0), -EPROTO);
    EXPECT_EQ(call_name(FUSE_LOOKUP, 1, NULL, 0, "x"), -EIO);
    init();
    EXPECT_EQ(call_name(FUSE_LOOKUP, 1, NULL, 0, "x"), -ENOENT);
    end();
}

TEST(file_is_found_read_and_written)
{
    begin(false);
    host_file("a", "hello world");
    uint64_t node = lookup(1, "a", 0);
    EXPECT_EQ(entry()->attr.size, 11);
    EXPECT_EQ(entry()->attr.mode, S_IFREG | 0644);
    EXPECT_EQ(lookup(1, "a", 0), node); /* one node per file */
    uint64_t fh = open_node(node, O_RDWR, 0);
    EXPECT_EQ(read_file(fh, 6, 4096), 0);
    EXPECT_EQ(reply_size, 5);
    EXPECT_MEM(reply, "world", 5);
    EXPECT_EQ(read_file(fh, 11, 4096), 0);
    EXPECT_EQ(reply_size, 0);
    EXPECT_EQ(write_file(fh, 6, "there", 5), 0);
    EXPECT_EQ(((struct fuse_write_out *)(void *)reply)->size, 5);
    EXPECT_EQ(read_file(fh, 0, 4096), 0);
    EXPECT_MEM(reply, "hello there", 11);
    struct fuse_release_in in = {.fh = fh};
    EXPECT_EQ(call(FUSE_RELEASE, node, &in, sizeof(in), NULL, 0), 0);
    EXPECT_EQ(call(FUSE_RELEASE, node, &in, sizeof(in), NULL, 0), -EBADF);
    EXPECT_EQ(read_file(fh, 0, 1), -EBADF);
    end();
}

TEST(large_transfer_in_one_request)
{
    static uint8_t data[FS_MAX_WRITE];

    begin(false);
    host_file("a", "");
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 131 >> 5);
    uint64_t fh = open_node(lookup(1, "a", 0), O_RDWR, 0);
    EXPECT_EQ(write_file(fh, 0, data, sizeof(data)), 0);
    EXPECT_EQ(read_file(fh, 0, sizeof(data)), 0);
    EXPECT_EQ(reply_size, sizeof(data));
    EXPECT_MEM(reply, data, sizeof(data));
    end();
}

struct created {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
};

TEST(files_folders_and_links_are_made)
{
    struct fuse_create_in create = {.flags = O_RDWR | O_CREAT, .mode = S_IFREG | 04751};
    struct fuse_mkdir_in mkdir_in = {.mode = 0750};
    struct fuse_mknod_in fifo = {.mode = S_IFIFO | 0600};
    struct fuse_mknod_in device = {.mode = S_IFCHR | 0600, .rdev = 0x103};
    struct stat st;

    begin(false);
    ASSERT_EQ(call_name(FUSE_CREATE, 1, &create, sizeof(create), "new"), 0);
    struct created made = *(struct created *)(void *)reply;
    EXPECT_EQ(write_file(made.open.fh, 0, "x", 1), 0);
    ASSERT_EQ(stat(host("new"), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFREG | 0751); /* never set-uid */
    EXPECT_EQ(st.st_size, 1);
    create.flags |= O_EXCL;
    EXPECT_EQ(call_name(FUSE_CREATE, 1, &create, sizeof(create), "new"), -EEXIST);
    create.flags &= ~(uint32_t)O_EXCL;
    ASSERT_EQ(call_name(FUSE_CREATE, 1, &create, sizeof(create), "new"), 0);
    EXPECT_EQ(entry()->nodeid, made.entry.nodeid);

    ASSERT_EQ(call_name(FUSE_MKDIR, 1, &mkdir_in, sizeof(mkdir_in), "dir"), 0);
    uint64_t dir = entry()->nodeid;
    EXPECT_EQ(entry()->attr.mode, S_IFDIR | 0750);
    EXPECT_EQ(call_name(FUSE_MKNOD, dir, &fifo, sizeof(fifo), "pipe"), 0);
    (void)open_node(entry()->nodeid, O_RDONLY, -ENXIO); /* would hang */
    EXPECT_EQ(call_name(FUSE_MKNOD, dir, &device, sizeof(device), "null"), -EPERM);

    EXPECT_EQ(call(FUSE_SYMLINK, dir, "link\0../../etc/passwd", 22, NULL, 0), 0);
    uint64_t link = entry()->nodeid;
    EXPECT_EQ(entry()->attr.mode & S_IFMT, S_IFLNK);
    EXPECT_EQ(call(FUSE_READLINK, link, NULL, 0, NULL, 0), 0);
    EXPECT_EQ(reply_size, 16);
    EXPECT_MEM(reply, "../../etc/passwd", 16);
    (void)open_node(link, O_RDONLY, -ELOOP); /* links are the guest's to follow */
    EXPECT_EQ(call_name(FUSE_CREATE, dir, &create, sizeof(create), "link"), -ELOOP);

    struct fuse_link_in link_in = {.oldnodeid = made.entry.nodeid};
    EXPECT_EQ(call_name(FUSE_LINK, dir, &link_in, sizeof(link_in), "hard"), 0);
    EXPECT_EQ(entry()->nodeid, made.entry.nodeid);
    EXPECT_EQ(entry()->attr.nlink, 2);
    end();
}

TEST(modes_are_right_where_the_umask_stays)
{
    struct fuse_create_in create = {.flags = O_RDWR | O_CREAT, .mode = S_IFREG | 0666};
    struct fuse_mkdir_in mkdir_in = {.mode = 01777};

    begin(false);
    (void)umask(077);
    work.masked = true;
    EXPECT_EQ(call_name(FUSE_CREATE, 1, &create, sizeof(create), "a"), 0);
    EXPECT_EQ(entry()->attr.mode, S_IFREG | 0666);
    EXPECT_EQ(call_name(FUSE_MKDIR, 1, &mkdir_in, sizeof(mkdir_in), "d"), 0);
    (void)lookup(1, "d", 0);
    EXPECT_EQ(entry()->attr.mode, S_IFDIR | 01777);
    end();
}

TEST(names_never_lead_out)
{
    static const char *const bad[] = {"..", ".", "", "a/b", "/etc", "../x"};
    struct fuse_mkdir_in mkdir_in = {.mode = 0755};
    struct fuse_rename_in rename_in = {.newdir = 1};
    char name[300];

    begin(false);
    host_file("a", "");
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        EXPECT_EQ(call_name(FUSE_LOOKUP, 1, NULL, 0, bad[i]), -EINVAL);
        EXPECT_EQ(call_name(FUSE_UNLINK, 1, NULL, 0, bad[i]), -EINVAL);
        EXPECT_EQ(call_name(FUSE_MKDIR, 1, &mkdir_in, sizeof(mkdir_in), bad[i]), -EINVAL);
        (void)snprintf(name, sizeof(name), "a%c%s", 0, bad[i]);
        EXPECT_EQ(call(FUSE_RENAME, 1, &rename_in, sizeof(rename_in), name, 3 + strlen(bad[i])),
                  -EINVAL);
    }
    EXPECT_EQ(call(FUSE_LOOKUP, 1, NULL, 0, "abc", 3), -EINVAL); /* no end */
    memset(name, 'n', sizeof(name));
    name[256] = 0;
    EXPECT_EQ(call_name(FUSE_LOOKUP, 1, NULL, 0, name), -ENAMETOOLONG);
    /* A folder of the host's that is replaced by a link is not walked through. */
    EXPECT_EQ(mkdir(host("d"), 0755), 0);
    uint64_t dir = lookup(1, "d", 0);
    EXPECT_EQ(rmdir(host("d")), 0);
    EXPECT_EQ(symlink("/etc", host("d")), 0);
    EXPECT_EQ(call_name(FUSE_LOOKUP, dir, NULL, 0, "passwd"), -ENOENT);
    uint64_t link = lookup(1, "d", 0);
    EXPECT_EQ(call_name(FUSE_LOOKUP, link, NULL, 0, "passwd"), -ENOTDIR);
    end();
}

TEST(readonly_folder_stays_as_it_is)
{
    struct fuse_create_in create = {.flags = O_RDWR | O_CREAT, .mode = 0644};
    struct fuse_setattr_in set = {.valid = FATTR_MODE, .mode = 0777};

    begin(true);
    host_file("a", "text");
    uint64_t node = lookup(1, "a", 0);
    uint64_t fh = open_node(node, O_RDONLY, 0);
    EXPECT_EQ(read_file(fh, 0, 100), 0);
    EXPECT_EQ(reply_size, 4);
    (void)open_node(node, O_WRONLY, -EROFS);
    (void)open_node(node, O_RDONLY | O_TRUNC, -EROFS);
    EXPECT_EQ(write_file(fh, 0, "x", 1), -EROFS);
    EXPECT_EQ(call_name(FUSE_CREATE, 1, &create, sizeof(create), "b"), -EROFS);
    EXPECT_EQ(call_name(FUSE_UNLINK, 1, NULL, 0, "a"), -EROFS);
    EXPECT_EQ(call(FUSE_SETATTR, node, &set, sizeof(set), NULL, 0), -EROFS);
    end();
}

TEST(attributes_are_set)
{
    struct fuse_setattr_in in = {
        .valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME,
        .mode = 06640,
        .size = 3,
        .mtime = 1000000000,
        .mtimensec = 5,
    };
    struct fuse_attr_out *out = (void *)reply;

    begin(false);
    host_file("a", "hello");
    uint64_t node = lookup(1, "a", 0);
    ASSERT_EQ(call(FUSE_SETATTR, node, &in, sizeof(in), NULL, 0), 0);
    EXPECT_EQ(out->attr.mode, S_IFREG | 0640);
    EXPECT_EQ(out->attr.size, 3);
    EXPECT_EQ(out->attr.mtime, 1000000000);
    EXPECT_EQ(out->attr.mtimensec, 5);
    in = (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = ~0ull};
    EXPECT_EQ(call(FUSE_SETATTR, node, &in, sizeof(in), NULL, 0), -EFBIG);
    end();
}

TEST(rename_and_unlink_keep_what_is_open)
{
    struct fuse_rename2_in in = {.newdir = 1};
    struct fuse_getattr_in get = {0};

    begin(false);
    host_file("a", "aaa");
    host_file("b", "bb");
    uint64_t a = lookup(1, "a", 0);
    uint64_t b = lookup(1, "b", 0);
    uint64_t fh = open_node(b, O_RDONLY, 0);
    in.flags = 1; /* RENAME_NOREPLACE */
    EXPECT_EQ(call(FUSE_RENAME2, 1, &in, sizeof(in), "a\0b", 4), -EEXIST);
    in.flags = 4; /* RENAME_WHITEOUT: makes a device node */
    EXPECT_EQ(call(FUSE_RENAME2, 1, &in, sizeof(in), "a\0b", 4), -EINVAL);
    in.flags = 0;
    EXPECT_EQ(call(FUSE_RENAME2, 1, &in, sizeof(in), "a\0b", 4), 0);
    EXPECT_EQ(lookup(1, "b", 0), a);
    EXPECT_EQ(read_file(fh, 0, 10), 0);
    EXPECT_EQ(reply_size, 2);
    EXPECT_EQ(call_name(FUSE_UNLINK, 1, NULL, 0, "b"), 0);
    EXPECT_EQ(call(FUSE_GETATTR, a, &get, sizeof(get), NULL, 0), 0);
    EXPECT_EQ(((struct fuse_attr_out *)(void *)reply)->attr.nlink, 0);
    EXPECT_EQ(call_name(FUSE_RMDIR, 1, NULL, 0, "nothing"), -ENOENT);
    end();
}

static uint64_t open_root(void)
{
    struct fuse_open_in in = {0};

    EXPECT_EQ(call(FUSE_OPENDIR, 1, &in, sizeof(in), NULL, 0), 0);
    return ((struct fuse_open_out *)(void *)reply)->fh;
}

/** List the root by answers of @size bytes; returns how many entries came, `.` and `..` apart. */
static unsigned list_root(uint32_t opcode, uint32_t size)
{
    struct fuse_read_in in = {.fh = open_root(), .size = size};
    size_t head = opcode == FUSE_READDIRPLUS ? sizeof(struct fuse_entry_out) : 0;
    unsigned count = 0;

    for (;;) {
        ASSERT_EQ(call(opcode, 1, &in, sizeof(in), NULL, 0), 0);
        EXPECT_TRUE(reply_size <= size);
        if (!reply_size)
            return count;
        for (size_t at = 0; at < reply_size;) {
            const struct fuse_entry_out *e = (const void *)(reply + at);
            const struct fuse_dirent *d = (const void *)(reply + at + head);
            bool is_dot = d->name[0] == '.';

            if (head)
                EXPECT_EQ(!e->nodeid, is_dot);
            if (head && !is_dot)
                EXPECT_EQ(e->attr.ino, d->ino);
            count += !is_dot;
            in.offset = d->off;
            at += align_up(head + sizeof(*d) + d->namelen, 8);
        }
    }
}

TEST(listing_gives_every_entry_once)
{
    char name[16];

    begin(false);
    for (unsigned i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof(name), "file%u", i);
        host_file(name, "");
    }
    EXPECT_EQ(list_root(FUSE_READDIR, 4096), 500);
    EXPECT_EQ(list_root(FUSE_READDIR, 64), 500);
    EXPECT_EQ(list_root(FUSE_READDIRPLUS, 4096), 500);
    EXPECT_EQ(list_root(FUSE_READDIRPLUS, 1 << 20), 500);
    EXPECT_EQ(server->inodes.used, 501);
    end();
}

TEST(forgotten_nodes_are_gone)
{
    struct fuse_forget_in forget = {.nlookup = 1};
    struct fuse_getattr_in get = {0};

    begin(false);
    host_file("a", "");
    uint64_t node = lookup(1, "a", 0);
    (void)lookup(1, "a", 0);
    EXPECT_EQ(call(FUSE_FORGET, node, &forget, sizeof(forget), NULL, 0), 1);
    EXPECT_EQ(call(FUSE_GETATTR, node, &get, sizeof(get), NULL, 0), 0);
    struct {
        struct fuse_batch_forget_in head;
        struct fuse_forget_one one[2];
    } batch = {
        .head = {.count = 1000000                },
        .one = { {.nodeid = node, .nlookup = 1}, {.nodeid = 1, .nlookup = ~0ull}},
    };
    EXPECT_EQ(call(FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL, 0), 1);
    EXPECT_EQ(call(FUSE_GETATTR, node, &get, sizeof(get), NULL, 0), -ESTALE);
    EXPECT_EQ(call(FUSE_GETATTR, 1, &get, sizeof(get), NULL, 0), 0); /* never the root */
    EXPECT_TRUE(lookup(1, "a", 0) != node);
    EXPECT_EQ(server->inode_fds, 2);
    end();
}

TEST(descriptors_are_spared_and_opened_again)
{
    struct fuse_mkdir_in mkdir_in = {.mode = 0755};
    struct fuse_getattr_in get = {0};
    static uint64_t nodes[300];
    char name[16];
    uint64_t dir = 1;

    begin(false);
    server->max_inode_fds = 20;
    for (unsigned i = 0; i < 5; i++) {
        ASSERT_EQ(call_name(FUSE_MKDIR, dir, &mkdir_in, sizeof(mkdir_in), "sub"), 0);
        dir = entry()->nodeid;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++) {
        (void)snprintf(name, sizeof(name), "file%u", i);
        ASSERT_EQ(call_name(FUSE_MKDIR, dir, &mkdir_in, sizeof(mkdir_in), name), 0);
        nodes[i] = entry()->nodeid;
    }
    EXPECT_TRUE(server->inode_fds <= 21);
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++)
        EXPECT_EQ(call(FUSE_GETATTR, nodes[i], &get, sizeof(get), NULL, 0), 0);
    EXPECT_TRUE(server->inode_fds <= 21);
    /* Moved by the guest: found again. Moved by the host: stale, until it is looked up. */
    struct fuse_rename_in to_root = {.newdir = 1};
    EXPECT_EQ(call(FUSE_RENAME, dir, &to_root, sizeof(to_root), "file7\0seven", 12), 0);
    char from[600];
    (void)snprintf(from, sizeof(from), "%s", host("sub/sub/sub/sub/sub/file8"));
    EXPECT_EQ(rename(from, host("eight")), 0);
    for (unsigned i = 100; i < 200; i++)
        EXPECT_EQ(call(FUSE_GETATTR, nodes[i], &get, sizeof(get), NULL, 0), 0);
    EXPECT_EQ(call(FUSE_GETATTR, nodes[7], &get, sizeof(get), NULL, 0), 0);
    EXPECT_EQ(call(FUSE_GETATTR, nodes[8], &get, sizeof(get), NULL, 0), -ESTALE);
    EXPECT_EQ(lookup(1, "eight", 0), nodes[8]);
    EXPECT_EQ(call(FUSE_GETATTR, nodes[8], &get, sizeof(get), NULL, 0), 0);
    end();
}

TEST(cached_pages_are_kept_only_of_unchanged_files)
{
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    struct fuse_open_out *out = (void *)reply;

    begin(false);
    host_file("a", "1");
    EXPECT_EQ(utimensat(AT_FDCWD, host("a"), old, 0), 0);
    uint64_t node = lookup(1, "a", 0);
    (void)open_node(node, O_RDONLY, 0);
    EXPECT_EQ(out->open_flags & FOPEN_KEEP_CACHE, 0);
    (void)open_node(node, O_RDONLY, 0);
    EXPECT_EQ(out->open_flags & FOPEN_KEEP_CACHE, FOPEN_KEEP_CACHE);
    host_file("a", "2");
    (void)open_node(node, O_RDONLY, 0);
    EXPECT_EQ(out->open_flags & FOPEN_KEEP_CACHE, 0);
    (void)open_node(node, O_RDONLY, 0); /* changed too lately to be sure */
    EXPECT_EQ(out->open_flags & FOPEN_KEEP_CACHE, 0);
    end();
}

TEST(extended_attributes_of_users_only)
{
    struct fuse_setxattr_in set = {.size = 3};
    struct fuse_getxattr_in get = {.size = 100};

    begin(false);
    host_file("a", "");
    uint64_t node = lookup(1, "a", 0);
    size_t head = FUSE_COMPAT_SETXATTR_IN_SIZE;
    if (call(FUSE_SETXATTR, node, &set, head, "user.x\0abc", 10) == -EOPNOTSUPP)
        test_skip("/tmp takes no extended attributes");
    EXPECT_EQ(call_name(FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), 0);
    EXPECT_EQ(reply_size, 3);
    EXPECT_MEM(reply, "abc", 3);
    get.size = 2;
    EXPECT_EQ(call_name(FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), -ERANGE);
    get.size = 100;
    EXPECT_EQ(call(FUSE_LISTXATTR, node, &get, sizeof(get), NULL, 0), 0);
    EXPECT_EQ(reply_size, 7);
    EXPECT_EQ(call(FUSE_SETXATTR, node, &set, head, "security.capability\0abc", 23), -EOPNOTSUPP);
    EXPECT_EQ(call(FUSE_SETXATTR, node, &set, head, "trusted.x\0abc", 13), -EOPNOTSUPP);
    set.size = 100; /* more than there is */
    EXPECT_EQ(call(FUSE_SETXATTR, node, &set, head, "user.y\0abc", 10), -E2BIG);
    EXPECT_EQ(call_name(FUSE_REMOVEXATTR, node, NULL, 0, "user.x"), 0);
    EXPECT_EQ(call_name(FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), -ENODATA);
    end();
}

TEST(holes_copies_and_space)
{
    begin(false);
    host_file("a", "data");
    host_file("b", "");
    uint64_t a = open_node(lookup(1, "a", 0), O_RDWR, 0);
    uint64_t b = open_node(lookup(1, "b", 0), O_RDWR, 0);
    struct fuse_copy_file_range_in copy = {.fh_in = a, .fh_out = b, .len = ~0ull};
    int rc = call(FUSE_COPY_FILE_RANGE, 1, &copy, sizeof(copy), NULL, 0);
    EXPECT_TRUE(!rc || rc == -EXDEV || rc == -EOPNOTSUPP);
    if (!rc)
        EXPECT_EQ(((struct fuse_write_out *)(void *)reply)->size, 4);
    struct fuse_fallocate_in space = {.fh = b, .length = 8192};
    rc = call(FUSE_FALLOCATE, 1, &space, sizeof(space), NULL, 0);
    EXPECT_TRUE(!rc || rc == -EOPNOTSUPP);
    struct fuse_lseek_in seek = {.fh = a, .whence = SEEK_HOLE};
    EXPECT_EQ(call(FUSE_LSEEK, 1, &seek, sizeof(seek), NULL, 0), 0);
    EXPECT_EQ(((struct fuse_lseek_out *)(void *)reply)->offset, 4);
    struct fuse_fsync_in sync = {.fh = b};
    EXPECT_EQ(call(FUSE_FSYNC, 1, &sync, sizeof(sync), NULL, 0), 0);
    EXPECT_EQ(call(FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
    EXPECT_TRUE(((struct fuse_statfs_out *)(void *)reply)->st.blocks > 0);
    end();
}

TEST(requests_that_are_cut_short_are_refused)
{
    uint8_t args[128] = {0};

    begin(false);
    for (uint32_t opcode = 0; opcode < 64; opcode++) {
        if (opcode == FUSE_READLINK || opcode == FUSE_STATFS || opcode == FUSE_DESTROY ||
            opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT)
            continue;
        for (size_t size = 0; size < 8; size++)
            EXPECT_TRUE(call(opcode, 1, args, size, NULL, 0) < 0);
    }
    struct fuse_write_in in = {.fh = 1, .size = 100};
    EXPECT_EQ(call(FUSE_WRITE, 1, &in, sizeof(in), "short", 5), -EINVAL);
    EXPECT_EQ(call(9999, 1, NULL, 0, NULL, 0), -ENOSYS);
    struct fuse_in_header head = {.len = 1000, .opcode = FUSE_STATFS, .nodeid = 1};
    struct iovec iov = {.iov_base = &head, .iov_len = sizeof(head)};
    EXPECT_EQ(fs_serve(server, &work, &iov, 1, NULL, 0), 0);
    head.len = 10;
    EXPECT_EQ(fs_serve(server, &work, &iov, 1, NULL, 0), 0);
    iov.iov_len = 7;
    EXPECT_EQ(fs_serve(server, &work, &iov, 1, NULL, 0), 0);
    end();
}

TEST(answer_without_room_is_an_error)
{
    struct fuse_in_header head = {
        .len = sizeof(head) + 2, .opcode = FUSE_LOOKUP, .unique = 1, .nodeid = 1};
    char name[] = "a";
    struct fuse_out_header out;
    struct iovec in[2] = {
        {.iov_base = &head, .iov_len = sizeof(head)},
        {.iov_base = name,  .iov_len = 2           },
    };
    struct iovec room = {.iov_base = &out, .iov_len = sizeof(out)};

    begin(false);
    host_file("a", "");
    EXPECT_EQ(fs_serve(server, &work, in, 2, &room, 1), sizeof(out));
    EXPECT_EQ(out.error, -EIO);
    EXPECT_EQ(server->inodes.used, 1); /* the guest does not know of it */
    end();
}
