/* The NBD server, spoken to by hand: negotiation, every command, errors, hostile clients, and
 * several requests at once. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "base/test.h"
#include "base/thread.h"
#include "disk/disk.h"
#include "disk/file_memory.h"
#include "disk/format.h"
#include "nbd/nbd_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define DISK_BYTES (1u << 20)

static struct nbd_server *server;
static struct disk *disk;
static pthread_t thread;
static int client = -1;
static int server_side;

static void *serve(void *arg)
{
    nbd_server_serve(arg, server_side);
    return NULL;
}

static void connect_again(void)
{
    int fds[2];

    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    client = fds[0];
    server_side = fds[1];
    ASSERT_EQ(thread_start(&thread, "server", serve, server), 0);
}

static void start_with(struct disk *d, bool readonly)
{
    struct nbd_config config = {.disk = d,
                                .name = "the-disk",
                                .description = "a test",
                                .max_clients = 2,
                                .readonly = readonly};

    disk = d;
    ASSERT_EQ(nbd_server_new(&config, &server, NULL), 0);
    connect_again();
}

static void start(bool readonly)
{
    uint8_t *data = malloc(DISK_BYTES);
    struct disk *d = NULL;

    ASSERT_TRUE(data);
    for (size_t i = 0; i < DISK_BYTES; i++)
        data[i] = (uint8_t)(i * 7 >> 5);
    memset(data + 65536 * 4, 0, 65536 * 2);
    struct file *f = file_memory_new(data, DISK_BYTES, DISK_BYTES);
    ASSERT_EQ(file_write_zeroes(f, 65536 * 4, 65536 * 2, true), 0);
    ASSERT_EQ(disk_open_file(f, &raw_format, 0, NULL, &d, NULL), 0);
    free(data);
    start_with(d, readonly);
}

static void hang_up(void)
{
    fd_close(client);
    thread_join(thread);
}

static void stop(void)
{
    hang_up();
    nbd_server_free(server);
    disk_close(disk);
}

static void put(const void *buf, size_t size)
{
    ASSERT_EQ(fd_write_all(client, buf, size), 0);
}

static void take(void *buf, size_t size)
{
    ASSERT_EQ(fd_read_all(client, buf, size), 0);
}

/** The server has closed the connection. */
static void expect_end(void)
{
    uint8_t rest[4096];
    ssize_t n;

    while ((n = read(client, rest, sizeof(rest))) > 0) {
    }
    EXPECT_TRUE(n == 0 || errno == ECONNRESET);
}

static void hello(void)
{
    uint8_t head[18];
    uint8_t flags[4] = {0, 0, 0, 3};

    take(head, sizeof(head));
    EXPECT_EQ(load_be64(head), NBD_MAGIC);
    EXPECT_EQ(load_be64(head + 8), NBD_OPTION_MAGIC);
    EXPECT_EQ(load_be16(head + 16), 3);
    put(flags, 4);
}

static void option(uint32_t number, const void *data, uint32_t size)
{
    uint8_t head[16];

    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, number);
    store_be32(head + 12, size);
    put(head, sizeof(head));
    if (size)
        put(data, size);
}

/** The type of the next reply to @number; its data at @ret. */
static uint32_t option_reply(uint32_t number, uint8_t *ret, uint32_t *ret_size)
{
    uint8_t head[20];

    take(head, sizeof(head));
    EXPECT_EQ(load_be64(head), NBD_OPTION_REPLY);
    EXPECT_EQ(load_be32(head + 8), number);
    *ret_size = load_be32(head + 16);
    ASSERT_TRUE(*ret_size <= 2048);
    take(ret, *ret_size);
    return load_be32(head + 12);
}

static uint32_t option_answer(uint32_t number, const void *data, uint32_t size)
{
    uint8_t buf[2048];
    uint32_t n;

    option(number, data, size);
    return option_reply(number, buf, &n);
}

/** Name and @extra bytes for INFO, GO and contexts. */
static uint32_t with_name(uint8_t *to, const char *name, const void *extra, uint32_t size)
{
    store_be32(to, (uint32_t)strlen(name));
    memcpy(to + 4, name, strlen(name));
    memcpy(to + 4 + strlen(name), extra, size);
    return (uint32_t)(4 + strlen(name)) + size;
}

static uint16_t go(void)
{
    uint8_t data[64];
    uint8_t buf[2048];
    uint32_t n;
    uint16_t flags = 0;
    uint32_t type;

    option(NBD_OPT_GO, data, with_name(data, "the-disk", "\0\0", 2));
    while ((type = option_reply(NBD_OPT_GO, buf, &n)) == NBD_REP_INFO) {
        if (load_be16(buf) == NBD_INFO_EXPORT) {
            EXPECT_EQ(load_be64(buf + 2), DISK_BYTES);
            flags = load_be16(buf + 10);
        }
    }
    EXPECT_EQ(type, NBD_REP_ACK);
    return flags;
}

static void structured(void)
{
    EXPECT_EQ(option_answer(NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
}

static void put_request(uint8_t *head, unsigned type, unsigned flags, uint64_t cookie,
                        uint64_t offset, uint32_t length)
{
    store_be32(head, NBD_REQUEST_MAGIC);
    store_be16(head + 4, (uint16_t)flags);
    store_be16(head + 6, (uint16_t)type);
    store_be64(head + 8, cookie);
    store_be64(head + 16, offset);
    store_be32(head + 24, length);
}

static void request(unsigned type, unsigned flags, uint64_t cookie, uint64_t offset,
                    uint32_t length)
{
    uint8_t head[NBD_REQUEST_SIZE];

    put_request(head, type, flags, cookie, offset, length);
    put(head, sizeof(head));
}

/** The error number of a simple reply. */
static uint32_t simple(uint64_t cookie)
{
    uint8_t head[16];

    take(head, sizeof(head));
    EXPECT_EQ(load_be32(head), NBD_SIMPLE_REPLY);
    EXPECT_EQ(load_be64(head + 8), cookie);
    return load_be32(head + 4);
}

static uint32_t command(unsigned type, unsigned flags, uint64_t offset, uint32_t length)
{
    request(type, flags, 77, offset, length);
    return simple(77);
}

/** Header of a chunk; its payload at @ret. */
static unsigned chunk(uint64_t cookie, bool *ret_done, uint8_t *ret, uint32_t *ret_size)
{
    uint8_t head[20];

    take(head, sizeof(head));
    EXPECT_EQ(load_be32(head), NBD_STRUCTURED_REPLY);
    EXPECT_EQ(load_be64(head + 8), cookie);
    *ret_done = load_be16(head + 4) & 1;
    *ret_size = load_be32(head + 16);
    take(ret, *ret_size);
    return load_be16(head + 6);
}

TEST(negotiation_answers_every_option)
{
    uint8_t data[256];
    uint8_t buf[2048];
    uint32_t n;

    start(false);
    hello();
    EXPECT_EQ(option_answer(4711, "abc", 3), NBD_REP_ERR_UNSUP);
    EXPECT_EQ(option_answer(NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_POLICY);
    option(NBD_OPT_LIST, NULL, 0);
    EXPECT_EQ(option_reply(NBD_OPT_LIST, buf, &n), NBD_REP_SERVER);
    EXPECT_EQ(load_be32(buf), 8);
    EXPECT_TRUE(n == 4 + 8 + 6 && !memcmp(buf + 4, "the-diska test", 14));
    EXPECT_EQ(option_reply(NBD_OPT_LIST, buf, &n), NBD_REP_ACK);
    EXPECT_EQ(option_answer(NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
    uint32_t size = with_name(data, "another", "\0\0", 2);
    EXPECT_EQ(option_answer(NBD_OPT_INFO, data, size), NBD_REP_ERR_UNKNOWN);
    EXPECT_EQ(option_answer(NBD_OPT_INFO, "\0\0\1\0", 4), NBD_REP_ERR_INVALID);
    EXPECT_EQ(option_answer(NBD_OPT_INFO, "\377\377\377\377xy", 6), NBD_REP_ERR_INVALID);
    size = with_name(data, "the-disk", "\0\7", 2); /* seven infos asked, none there */
    EXPECT_EQ(option_answer(NBD_OPT_GO, data, size), NBD_REP_ERR_INVALID);
    size = with_name(data, "the-disk", "\0\0\0\0", 4);
    EXPECT_EQ(option_answer(NBD_OPT_LIST_META_CONTEXT, data, size), NBD_REP_ERR_INVALID);
    structured();
    option(NBD_OPT_LIST_META_CONTEXT, data, size);
    EXPECT_EQ(option_reply(NBD_OPT_LIST_META_CONTEXT, buf, &n), NBD_REP_META_CONTEXT);
    EXPECT_TRUE(n == 4 + 15 && !memcmp(buf + 4, "base:allocation", 15));
    EXPECT_EQ(option_reply(NBD_OPT_LIST_META_CONTEXT, buf, &n), NBD_REP_META_CONTEXT);
    EXPECT_TRUE(n == 4 + 21 && !memcmp(buf + 4, "qemu:allocation-depth", 21));
    EXPECT_EQ(option_reply(NBD_OPT_LIST_META_CONTEXT, buf, &n), NBD_REP_ACK);
    size = with_name(data, "the-disk", "\377\377\377\377\0\0\0\1x", 9); /* 2^32-1 queries */
    EXPECT_EQ(option_answer(NBD_OPT_SET_META_CONTEXT, data, size), NBD_REP_ERR_INVALID);
    EXPECT_EQ(go() & NBD_CAN_MULTI_CONN, NBD_CAN_MULTI_CONN);
    EXPECT_EQ(command(NBD_CMD_FLUSH, 0, 0, 0), 0);
    request(NBD_CMD_DISC, 0, 0, 0, 0);
    expect_end();
    stop();
}

TEST(oldest_way_to_choose_the_export)
{
    uint8_t answer[10];

    start(false);
    hello();
    option(NBD_OPT_EXPORT_NAME, "the-disk", 8);
    take(answer, sizeof(answer));
    EXPECT_EQ(load_be64(answer), DISK_BYTES);
    EXPECT_EQ(command(NBD_CMD_FLUSH, 0, 0, 0), 0);
    hang_up();
    connect_again();
    hello();
    option(NBD_OPT_EXPORT_NAME, "the-dosk", 8);
    expect_end();
    stop();
}

TEST(reads_and_writes)
{
    static uint8_t got[300000];
    static uint8_t want[300000];

    start(false);
    hello();
    EXPECT_EQ(go() & NBD_READ_ONLY, 0);
    EXPECT_EQ(command(NBD_CMD_READ, 0, 0, 0), 0); /* nothing, and before there is a buffer */
    for (size_t i = 0; i < sizeof(want); i++)
        want[i] = (uint8_t)(i % 251);
    request(NBD_CMD_WRITE, NBD_FLAG_FUA, 5, 12345, sizeof(want));
    put(want, sizeof(want));
    EXPECT_EQ(simple(5), 0);
    ASSERT_EQ(disk_pread(disk, got, sizeof(got), 12345), 0);
    EXPECT_TRUE(!memcmp(got, want, sizeof(got)));
    for (int i = 0; i < 40; i++) { /* by workers, then here */
        memset(got, 0, sizeof(got));
        request(NBD_CMD_READ, 0, (uint64_t)i, 12345 + (uint64_t)i, 200000);
        ASSERT_EQ(simple((uint64_t)i), 0);
        take(got, 200000);
        ASSERT_TRUE(!memcmp(got, want + i, 200000));
    }
    EXPECT_EQ(command(NBD_CMD_WRITE_ZEROES, NBD_FLAG_NO_HOLE, 20000, 1000), 0);
    EXPECT_EQ(command(NBD_CMD_WRITE_ZEROES, NBD_FLAG_FAST_ZERO, 30000, 1000), 0);
    EXPECT_EQ(command(NBD_CMD_WRITE_ZEROES, NBD_FLAG_FAST_ZERO | NBD_FLAG_NO_HOLE, 20000, 1000),
              NBD_ENOTSUP);
    EXPECT_EQ(command(NBD_CMD_TRIM, 0, 40000, 1000), 0);
    EXPECT_EQ(command(NBD_CMD_CACHE, 0, 0, DISK_BYTES), 0);
    ASSERT_EQ(disk_pread(disk, got, 1000, 20000), 0);
    EXPECT_TRUE(!got[0] && !memcmp(got, got + 1, 999));
    stop();
}

TEST(refusals_leave_the_connection_in_step)
{
    uint8_t data[512] = {1};

    start(true);
    hello();
    EXPECT_EQ(go() & NBD_READ_ONLY, NBD_READ_ONLY);
    request(NBD_CMD_WRITE, 0, 77, 0, 512);
    put(data, 512);
    EXPECT_EQ(simple(77), NBD_EPERM);
    EXPECT_EQ(command(NBD_CMD_TRIM, 0, 0, 512), NBD_EPERM);
    EXPECT_EQ(command(NBD_CMD_WRITE_ZEROES, 0, 0, 512), NBD_EPERM);
    EXPECT_EQ(command(NBD_CMD_READ, 0, DISK_BYTES, 1), NBD_EINVAL);
    EXPECT_EQ(command(NBD_CMD_READ, 0, UINT64_MAX, 2), NBD_EINVAL);
    EXPECT_EQ(command(NBD_CMD_READ, 0x8000, 0, 512), NBD_EINVAL);
    EXPECT_EQ(command(99, 0, 0, 512), NBD_EINVAL);
    EXPECT_EQ(command(NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL); /* no context was chosen */
    EXPECT_EQ(command(NBD_CMD_FLUSH, 0, 1, 0), NBD_EINVAL);
    EXPECT_EQ(command(NBD_CMD_FLUSH, 0, 0, 0), 0);
    hang_up();
    nbd_server_free(server);
    disk_close(disk);

    start(false);
    hello();
    (void)go();
    request(NBD_CMD_WRITE, 0, 77, DISK_BYTES - 511, 512);
    put(data, 512);
    EXPECT_EQ(simple(77), NBD_ENOSPC);
    EXPECT_EQ(command(NBD_CMD_FLUSH, 0, 0, 0), 0);
    stop();
}

TEST(structured_replies_and_block_status)
{
    static uint8_t got[70000];
    uint8_t query[64];
    uint8_t data[128];
    uint32_t n;
    bool done;

    start(false);
    hello();
    structured();
    store_be32(query, 2);
    store_be32(query + 4, 15);
    memcpy(query + 8, "base:allocation", 15);
    store_be32(query + 23, 21);
    memcpy(query + 27, "qemu:allocation-depth", 21);
    option(NBD_OPT_SET_META_CONTEXT, data, with_name(data, "the-disk", query, 48));
    EXPECT_EQ(option_reply(NBD_OPT_SET_META_CONTEXT, got, &n), NBD_REP_META_CONTEXT);
    uint32_t base = load_be32(got);
    EXPECT_EQ(option_reply(NBD_OPT_SET_META_CONTEXT, got, &n), NBD_REP_META_CONTEXT);
    uint32_t depth = load_be32(got);
    EXPECT_TRUE(base != depth);
    EXPECT_EQ(option_reply(NBD_OPT_SET_META_CONTEXT, got, &n), NBD_REP_ACK);
    (void)go();

    request(NBD_CMD_READ, NBD_FLAG_DF, 3, 1000, 60000);
    EXPECT_EQ(chunk(3, &done, got, &n), NBD_CHUNK_OFFSET_DATA);
    EXPECT_TRUE(done && n == 60008 && load_be64(got) == 1000);
    EXPECT_EQ(got[8 + 500], (uint8_t)(1500 * 7 >> 5));
    request(NBD_CMD_READ, 0, 4, DISK_BYTES, 1);
    EXPECT_EQ(chunk(4, &done, got, &n), NBD_CHUNK_ERROR);
    EXPECT_TRUE(done && n == 6 && load_be32(got) == NBD_EINVAL);

    request(NBD_CMD_BLOCK_STATUS, 0, 5, 65536, DISK_BYTES - 65536);
    EXPECT_EQ(chunk(5, &done, got, &n), NBD_CHUNK_BLOCK_STATUS);
    EXPECT_TRUE(!done && n == 4 + 24 && load_be32(got) == base);
    EXPECT_TRUE(load_be32(got + 4) == 3 * 65536 && load_be32(got + 8) == 0);
    EXPECT_TRUE(load_be32(got + 12) == 2 * 65536 && load_be32(got + 16) == 3);
    EXPECT_TRUE(load_be32(got + 20) == 10 * 65536 && load_be32(got + 24) == 0);
    EXPECT_EQ(chunk(5, &done, got, &n), NBD_CHUNK_BLOCK_STATUS);
    EXPECT_TRUE(done && n == 4 + 8 && load_be32(got) == depth && load_be32(got + 8) == 1);
    request(NBD_CMD_BLOCK_STATUS, NBD_FLAG_REQ_ONE, 6, 65536, DISK_BYTES - 65536);
    EXPECT_EQ(chunk(6, &done, got, &n), NBD_CHUNK_BLOCK_STATUS);
    EXPECT_TRUE(n == 4 + 8 && load_be32(got + 4) == 3 * 65536);
    EXPECT_EQ(chunk(6, &done, got, &n), NBD_CHUNK_BLOCK_STATUS);
    stop();
}

TEST(hostile_clients_are_cut_off)
{
    uint8_t head[28] = {0};
    static uint8_t junk[70000];

    start(false);
    hello();
    put(junk, 16); /* no magic */
    expect_end();
    hang_up();

    connect_again();
    hello();
    EXPECT_EQ(option_answer(NBD_OPT_LIST, junk, sizeof(junk)), NBD_REP_ERR_TOO_BIG);
    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, NBD_OPT_LIST);
    store_be32(head + 12, UINT32_MAX);
    put(head, 16);
    expect_end();
    hang_up();

    connect_again();
    hello();
    for (int i = 0; i < 128; i++)
        EXPECT_EQ(option_answer(4711, NULL, 0), NBD_REP_ERR_UNSUP);
    expect_end(); /* enough */
    hang_up();

    connect_again();
    hello();
    (void)go();
    EXPECT_EQ(command(NBD_CMD_READ, 0, 0, DISK_BYTES + 1), NBD_EINVAL);
    request(NBD_CMD_WRITE, 0, 1, 0, UINT32_MAX); /* its data would have to be skipped */
    expect_end();
    stop();
}

/** A disk whose reads below GATE wait. */
#define GATE 4096u

struct gate_disk {
    struct disk d; /* must be first */
    struct mutex lock;
    struct cond opened;
    bool is_open;
};

static int gate_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct gate_disk *g = (struct gate_disk *)d;

    mutex_lock(&g->lock);
    while (offset < GATE && !g->is_open)
        cond_wait(&g->opened, &g->lock);
    mutex_unlock(&g->lock);
    iov_zero(iov, (unsigned)iovcnt);
    return 0;
}

static int gate_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    (void)d;
    (void)offset;
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

static void gate_close(struct disk *d)
{
    (void)d;
}

TEST(a_slow_request_does_not_hold_up_others)
{
    static const struct disk_ops ops = {
        .preadv = gate_preadv, .status = gate_status, .close = gate_close};
    static struct gate_disk g = {
        .d = {.ops = &ops, .size_bytes = DISK_BYTES, .readonly = true}
    };
    uint8_t buf[512];

    mutex_init(&g.lock);
    cond_init(&g.opened);
    start_with(&g.d, false);
    hello();
    (void)go();
    for (int i = 0; i < 40; i++) { /* a client that seems to have one request at a time */
        request(NBD_CMD_READ, 0, 1, GATE, 512);
        EXPECT_EQ(simple(1), 0);
        take(buf, 512);
    }
    uint8_t heads[4][NBD_REQUEST_SIZE]; /* ...and no longer */
    for (unsigned i = 0; i < 4; i++)
        put_request(heads[i], NBD_CMD_READ, 0, 2 + i, i == 2 ? 0 : GATE, 512);
    put(heads, sizeof(heads));
    unsigned seen = 0;
    for (int i = 0; i < 3; i++) {
        uint8_t head[16];

        take(head, sizeof(head));
        take(buf, 512);
        seen |= 1u << load_be64(head + 8);
    }
    EXPECT_EQ(seen, 1u << 2 | 1u << 3 | 1u << 5);
    mutex_lock(&g.lock);
    g.is_open = true;
    cond_broadcast(&g.opened);
    mutex_unlock(&g.lock);
    EXPECT_EQ(simple(4), 0);
    take(buf, 512);
    stop();
}
