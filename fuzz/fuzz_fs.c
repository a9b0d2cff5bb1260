/* The shared folder's FUSE server under hostile requests. The input is a list of requests; node and
 * handle numbers are drawn from those given out, or wild. Beside the folder lies a file that must
 * stay as it is. */
#include "base/fd.h"
#include "base/log.h"
#include "device/virtio/fs_internal.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define KNOWN 16

static char outer[] = "/dev/shm/posada-fuzz-fs-XXXXXX";
static char folder[64], guard[64];
static struct fs_work work;
static uint64_t nodes[KNOWN], handles[KNOWN];

struct input {
    const uint8_t *p;
    size_t left;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint8_t raw[8] = {0};
    size_t n = MIN((size_t)bytes, in->left);

    memcpy(raw, in->p, n);
    in->p += n;
    in->left -= n;
    return load_le64(raw);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return ftw->level ? remove(path) : 0;
}

static void check_guard(void)
{
    char text[8] = "";
    int fd = open(guard, O_RDONLY);

    if (fd < 0 || read(fd, text, sizeof(text)) != 5 || memcmp(text, "guard", 5))
        abort();
    fd_close(fd);
}

static void remember(uint64_t *list, uint64_t value, uint8_t where)
{
    if (value)
        list[where % KNOWN] = value;
}

/** One request: opcode, node, length, then the bytes of arguments; where an operation's first
 * number is a handle, one is put there. */
static void request(struct fs_server *s, struct input *in)
{
    static uint8_t out[70000];
    uint8_t raw[40 + 255] = {0};
    struct fuse_in_header head = {.opcode = (uint32_t)take(in, 1) % 64, .unique = 1};
    uint8_t which = (uint8_t)take(in, 1);
    size_t size = (size_t)take(in, 1);

    head.nodeid = which < 0xf0 ? nodes[which % KNOWN] : take(in, 8);
    size = MIN(size, in->left);
    head.len = (uint32_t)(sizeof(head) + size);
    memcpy(raw + sizeof(head), in->p, size);
    in->p += size;
    in->left -= size;
    if (size >= 8 && raw[sizeof(head) + 7] != 0xff)
        store_le64(raw + sizeof(head),
                   handles[raw[sizeof(head)] % KNOWN] | (uint64_t)raw[sizeof(head) + 1] << 56);
    if (head.opcode == FUSE_SYNCFS)
        return; /* the host's whole disk */
    memcpy(raw, &head, sizeof(head));
    struct iovec from = {.iov_base = raw, .iov_len = sizeof(head) + size};
    struct iovec to[2] = {
        {.iov_base = out,      .iov_len = 16                       },
        {.iov_base = out + 16, .iov_len = which & 1 ? 65536 : which},
    };
    size_t n = fs_serve(s, &work, &from, 1, to, 2);
    if (n > 16 + to[1].iov_len)
        abort();
    struct fuse_out_header *reply = (void *)out;
    if (n < 16 || reply->error)
        return;
    if (n >= 16 + sizeof(struct fuse_entry_out) && head.opcode != FUSE_READ)
        remember(nodes, load_le64(out + 16), which);
    if (head.opcode == FUSE_OPEN || head.opcode == FUSE_OPENDIR)
        remember(handles, load_le64(out + 16), which);
    if (head.opcode == FUSE_CREATE)
        remember(handles, load_le64(out + 16 + sizeof(struct fuse_entry_out)), which);
}

static void clean_up(void)
{
    (void)nftw(outer, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    (void)rmdir(outer);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};

    (void)umask(0);
    (void)setrlimit(RLIMIT_FSIZE, &limit); /* no input fills the disk */
    if (!mkdtemp(outer) || atexit(clean_up))
        return 0;
    (void)snprintf(folder, sizeof(folder), "%s/share", outer);
    (void)snprintf(guard, sizeof(guard), "%s/guard", outer);
    (void)mkdir(folder, 0755);
    int fd = open(guard, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || fd_write_all(fd, "guard", 5))
        abort();
    fd_close(fd);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuse_in_header head = {.len = sizeof(head) + 16, .opcode = FUSE_INIT};
    struct fuse_init_in init = {.major = 7, .minor = 38, .flags = ~0u};
    struct iovec hello[2] = {
        {.iov_base = &head, .iov_len = sizeof(head)},
        {.iov_base = &init, .iov_len = 16          },
    };
    struct input in = {.p = data, .left = size};
    struct fs_server *s;
    int fd = open(folder, O_PATH | O_DIRECTORY);

    log_set_level(LOG_ERROR);
    (void)signal(SIGXFSZ,
                 SIG_IGN); /* the device's threads block it; libFuzzer wants to die of it */
    if (fd < 0 || fs_server_new(fd, false, &s, NULL))
        return 0;
    s->max_inode_fds = 8; /* so that they are closed and opened again */
    (void)fs_serve(s, &work, hello, 2, NULL, 0);
    memset(handles, 0, sizeof(handles));
    for (unsigned i = 0; i < KNOWN; i++)
        nodes[i] = FUSE_ROOT_ID;
    for (unsigned i = 0; in.left && i < 200; i++)
        request(s, &in);
    fs_server_free(s);
    (void)nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    check_guard();
    return 0;
}
