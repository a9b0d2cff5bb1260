/* virtio block device, over a disk that can fail and be slow. Spec: VIRTIO 1.2 §5.2. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/iov.h"
#include "base/test.h"
#include "device/virtio/blk.h"
#include "device/virtio/test_driver.h"
#include "disk/format.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define SECTORS 256u

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK, IOERR, UNSUPP };
#define F_RO    5
#define F_FLUSH 9

/** A disk in memory. */
static struct fake {
    struct disk d;
    uint8_t data[SECTORS * 512];
    int fail;             /* -errno of every request */
    unsigned delay_us;    /* of every transfer */
    unsigned flush_us;    /* delay of a flush */
    unsigned flushes;     /* [atomic] */
    unsigned active, max; /* [atomic] transfers under way, and the most so far */
    bool closed;
    uint64_t discarded, zeroed;
    bool may_unmap;
} fake;

static int move(const struct iovec *iov, int n, uint64_t offset, bool write)
{
    unsigned active = __atomic_add_fetch(&fake.active, 1, __ATOMIC_SEQ_CST);

    if (active > __atomic_load_n(&fake.max, __ATOMIC_SEQ_CST))
        __atomic_store_n(&fake.max, active, __ATOMIC_SEQ_CST);
    if (fake.delay_us)
        usleep(fake.delay_us);
    for (int i = 0; !fake.fail && i < n; i++) {
        if (write)
            memcpy(fake.data + offset, iov[i].iov_base, iov[i].iov_len);
        else
            memcpy(iov[i].iov_base, fake.data + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    __atomic_sub_fetch(&fake.active, 1, __ATOMIC_SEQ_CST);
    return fake.fail;
}

static int fake_preadv(struct disk *d, const struct iovec *iov, int n, uint64_t offset)
{
    return move(iov, n, offset, false);
}

static int fake_pwritev(struct disk *d, const struct iovec *iov, int n, uint64_t offset)
{
    return move(iov, n, offset, true);
}

static int fake_flush(struct disk *d)
{
    if (fake.flush_us)
        usleep(fake.flush_us);
    __atomic_add_fetch(&fake.flushes, 1, __ATOMIC_SEQ_CST);
    return fake.fail;
}

static int fake_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    fake.discarded += size;
    return fake.fail;
}

static int fake_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    memset(fake.data + offset, 0, size);
    fake.zeroed += size;
    fake.may_unmap = may_unmap;
    return fake.fail;
}

/** Nothing of it can be reached past the format. */
static int fake_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    (void)offset;
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

static void fake_close(struct disk *d)
{
    fake.closed = true;
}

static const struct disk_ops fake_ops = {
    .preadv = fake_preadv,
    .pwritev = fake_pwritev,
    .flush = fake_flush,
    .discard = fake_discard,
    .write_zeroes = fake_write_zeroes,
    .status = fake_status,
    .close = fake_close,
};

static struct test_driver d;
static struct virtio_device *dev;

static void begin(bool readonly, unsigned queues, uint64_t features)
{
    struct virtio_blk_config c = {.queues = queues, .serial = "posada-0123456789-and-more"};

    fake.d = (struct disk){.ops = &fake_ops, .size_bytes = SECTORS * 512, .readonly = readonly};
    for (unsigned i = 0; i < sizeof(fake.data); i++)
        fake.data[i] = (uint8_t)(i / 512);
    test_driver_init(&d, true);
    ASSERT_EQ(virtio_blk_new(d.mem, &c, &fake.d, &dev, NULL), 0);
    EXPECT_TRUE(test_driver_start(&d, dev, features, 64) & VIRTIO_DRIVER_OK);
}

static void end(void)
{
    test_driver_done(&d);
    EXPECT_TRUE(fake.closed);
}

static gpa_t header(uint32_t type, uint64_t sector)
{
    uint8_t h[16] = {0};

    store_le32(h, type);
    store_le64(h + 8, sector);
    return test_driver_put(&d, h, 16);
}

static const uint8_t *byte_ptr(gpa_t gpa)
{
    return test_driver_ptr(&d, gpa);
}

/** A request with one data buffer; returns the status. */
static unsigned request(uint32_t type, uint64_t sector, gpa_t data, uint32_t size)
{
    gpa_t status = test_driver_put(&d, "\xff", 1);
    struct test_buf bufs[3] = {
        {header(type, sector), 16, false}
    };
    unsigned n = 1;

    if (size)
        bufs[n++] = (struct test_buf){data, size, type == IN || type == GET_ID};
    bufs[n++] = (struct test_buf){status, 1, true};
    (void)test_driver_request(&d, 0, bufs, n);
    return *byte_ptr(status);
}

TEST(reads_and_writes)
{
    begin(false, 1, BIT(F_FLUSH));
    gpa_t buf = test_driver_alloc(&d, 1024);
    EXPECT_EQ(request(IN, 7, buf, 1024), OK);
    EXPECT_EQ(byte_ptr(buf)[0], 7);
    EXPECT_EQ(byte_ptr(buf)[1023], 8);
    memset(test_driver_ptr(&d, buf), 0x99, 1024);
    EXPECT_EQ(request(OUT, 255, buf, 512), OK);
    EXPECT_EQ(fake.data[255 * 512 + 511], 0x99);
    EXPECT_EQ(fake.data[254 * 512 + 511], 254);
    EXPECT_EQ(fake.flushes, 0);
    EXPECT_EQ(request(FLUSH, 0, buf, 0), OK);
    EXPECT_EQ(fake.flushes, 1);
    end();
}

/* §2.7.4: the device must not depend on how the driver cuts the request into descriptors. */
TEST(any_framing)
{
    begin(false, 1, BIT(F_FLUSH));
    uint8_t raw[16 + 512];
    memset(raw, 0x42, sizeof(raw));
    memcpy(raw, byte_ptr(header(OUT, 3)), 16);
    gpa_t out = test_driver_put(&d, raw, sizeof(raw));
    gpa_t in = test_driver_alloc(&d, 513);
    struct test_buf w[] = {
        {out,             5,   false},
        {GPA(out.v + 5),  20,  false}, /* the end of the header and some data */
        {GPA(out.v + 25), 503, false},
        {in,              1,   true },
    };
    EXPECT_EQ(test_driver_request(&d, 0, w, 4), 1);
    EXPECT_EQ(fake.data[3 * 512], 0x42);
    EXPECT_EQ(fake.data[3 * 512 + 511], 0x42);
    struct test_buf r[] = {
        {header(IN, 3),     16,          false},
        {in,         100,              true             },
        {GPA(in.v + 100),         413, true}, /* the rest of the data and the status */
    };
    EXPECT_EQ(test_driver_request(&d, 0, r, 3), 513);
    EXPECT_EQ(byte_ptr(in)[511], 0x42);
    EXPECT_EQ(byte_ptr(in)[512], OK);
    end();
}

TEST(bounds_and_sizes)
{
    begin(false, 1, BIT(F_FLUSH));
    gpa_t buf = test_driver_alloc(&d, 1024);
    EXPECT_EQ(request(IN, SECTORS - 1, buf, 512), OK);
    EXPECT_EQ(request(IN, SECTORS - 1, buf, 1024), IOERR);
    EXPECT_EQ(request(OUT, SECTORS, buf, 512), IOERR);
    EXPECT_EQ(request(OUT, UINT64_MAX, buf, 512), IOERR);
    EXPECT_EQ(request(IN, 1ull << 55, buf, 512), IOERR); /* wraps to 0 */
    EXPECT_EQ(request(IN, 0, buf, 511), IOERR);
    EXPECT_EQ(request(IN, 0, buf, 0), OK); /* nothing */
    EXPECT_EQ(request(77, 0, buf, 512), UNSUPP);
    end();
}

TEST(get_id)
{
    begin(false, 1, 0);
    gpa_t buf = test_driver_alloc(&d, 20);
    EXPECT_EQ(request(GET_ID, 0, buf, 20), OK);
    EXPECT_MEM(byte_ptr(buf), "posada-0123456789-an", 20);
    end();
}

TEST(disk_errors)
{
    begin(false, 1, 0);
    gpa_t buf = test_driver_alloc(&d, 512);
    memset(test_driver_ptr(&d, buf), 0xcc, 512);
    fake.fail = -EIO;
    EXPECT_EQ(request(IN, 0, buf, 512), IOERR);
    EXPECT_EQ(byte_ptr(buf)[0], 0); /* not what was there: the used length covers it */
    EXPECT_EQ(request(OUT, 0, buf, 512), IOERR);
    EXPECT_EQ(request(FLUSH, 0, buf, 0), IOERR);
    fake.fail = 0;
    EXPECT_EQ(request(IN, 9, buf, 512), OK);
    EXPECT_EQ(byte_ptr(buf)[0], 9);
    end();
}

/* §5.2.6.2: without FLUSH, every completed write is stable. */
TEST(write_through_without_flush_feature)
{
    begin(false, 1, 0);
    gpa_t buf = test_driver_alloc(&d, 512);
    EXPECT_EQ(request(OUT, 0, buf, 512), OK);
    EXPECT_EQ(fake.flushes, 1);
    EXPECT_EQ(request(IN, 0, buf, 512), OK);
    EXPECT_EQ(fake.flushes, 1);
    end();
}

TEST(readonly)
{
    begin(true, 1, BIT(F_RO));
    EXPECT_TRUE(dev->offered & BIT(F_RO));
    EXPECT_TRUE(!(dev->offered & BIT(13)));
    gpa_t buf = test_driver_alloc(&d, 512);
    EXPECT_EQ(request(IN, 5, buf, 512), OK);
    EXPECT_EQ(request(OUT, 5, buf, 512), IOERR);
    EXPECT_EQ(fake.data[5 * 512], 5);
    end();
}

static gpa_t range(uint64_t sector, uint32_t count, uint32_t flags)
{
    uint8_t r[16];

    store_le64(r, sector);
    store_le32(r + 8, count);
    store_le32(r + 12, flags);
    return test_driver_put(&d, r, 16);
}

TEST(discard_and_write_zeroes)
{
    begin(false, 1, BIT(F_FLUSH) | BIT(13) | BIT(14));
    EXPECT_EQ(request(DISCARD, 0, range(8, 16, 0), 16), OK);
    EXPECT_EQ(fake.discarded, 16 * 512);
    EXPECT_EQ(request(DISCARD, 0, range(8, 16, 1), 16), UNSUPP);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(8, 2, 1), 16), OK);
    EXPECT_EQ(fake.zeroed, 1024);
    EXPECT_TRUE(fake.may_unmap);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(10, 1, 0), 16), OK);
    EXPECT_TRUE(!fake.may_unmap);
    EXPECT_EQ(fake.data[10 * 512], 0);
    EXPECT_EQ(fake.data[11 * 512], 11);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(10, 1, 2), 16), UNSUPP);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(SECTORS, 1, 0), 16), IOERR);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(UINT64_MAX, 1, 0), 16), IOERR);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(0, 0xffffffff, 0), 16), IOERR);
    EXPECT_EQ(request(WRITE_ZEROES, 0, range(0, 1, 0), 15), IOERR);
    EXPECT_EQ(request(DISCARD, 0, test_driver_alloc(&d, 17 * 16), 17 * 16), IOERR);
    EXPECT_EQ(request(DISCARD, 0, GPA(0), 0), IOERR);
    end();
}

TEST(configuration)
{
    uint8_t c[60];

    begin(false, 4, 0);
    test_driver_config_read(&d, 0, c, 60);
    EXPECT_EQ(load_le64(c), SECTORS);
    EXPECT_EQ(load_le32(c + 12), 254);
    EXPECT_EQ(load_le32(c + 20), 512);
    EXPECT_EQ(c[24], 3);
    EXPECT_EQ(load_le16(c + 34), 4);
    EXPECT_TRUE(dev->offered & BIT(12));
    end();
}

TEST(malformed_requests_break)
{
    for (int i = 0; i < 2; i++) {
        begin(false, 1, 0);
        struct test_buf no_status[] = {
            {header(IN, 0), 16, false},
        };
        struct test_buf short_header[] = {
            {header(IN,            0),   15, false},
            {test_driver_alloc(&d, 513), 16, true },
        };
        test_driver_add(&d, 0, i ? no_status : short_header, i ? 1 : 2);
        test_driver_kick(&d, 0);
        EXPECT_TRUE(test_driver_wait_status(&d, VIRTIO_NEEDS_RESET));
        end();
    }
}

/** Send one slow read to queue @index. */
static void send_read(unsigned index)
{
    struct test_buf bufs[] = {
        {header(IN,            1),   16,  false},
        {test_driver_alloc(&d, 513), 513, true },
    };

    test_driver_add(&d, index, bufs, 2);
    test_driver_kick(&d, index);
}

TEST(queues_run_at_once)
{
    struct test_used used;

    begin(false, 4, 0);
    fake.delay_us = 100000;
    for (unsigned i = 0; i < 4; i++)
        send_read(i);
    for (unsigned i = 0; i < 4; i++)
        ASSERT_TRUE(test_driver_wait(&d, i, &used));
    EXPECT_EQ(fake.max, 4);
    end();
}

/* A read does not wait for a flush before it; a hundred flushes are all answered. */
TEST(reads_overtake_flushes)
{
    struct test_used used;

    begin(false, 1, BIT(F_FLUSH));
    fake.flush_us = 50000;
    struct test_buf flush[] = {
        {header(FLUSH,         0), 16, false},
        {test_driver_alloc(&d, 1), 1,  true },
    };
    uint16_t head = test_driver_add(&d, 0, flush, 2);
    send_read(0);
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_TRUE(used.id != head);
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_EQ(used.id, head);
    fake.flush_us = 100;
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 30; k++)
            test_driver_add(&d, 0, flush, 2);
        test_driver_kick(&d, 0);
        for (int k = 0; k < 30; k++)
            ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    }
    EXPECT_EQ(fake.flushes, 121);
    /* Reset and end while some are under way. */
    fake.flush_us = 5000;
    for (int k = 0; k < 10; k++)
        test_driver_add(&d, 0, flush, 2);
    test_driver_kick(&d, 0);
    usleep(1000);
    test_driver_set_status(&d, 0);
    test_driver_start(&d, dev, 0, 64);
    for (int k = 0; k < 10; k++)
        test_driver_add(&d, 0, flush, 2);
    test_driver_kick(&d, 0);
    end();
}

/* A reset while requests are at the disk waits for them; afterwards nothing touches guest memory.
 */
TEST(reset_with_requests_in_flight)
{
    begin(false, 4, 0);
    fake.delay_us = 20000;
    for (int round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 4; i++)
            for (unsigned k = 0; k < 8; k++)
                send_read(i);
        usleep(5000);
        test_driver_set_status(&d, 0);
        EXPECT_EQ(__atomic_load_n(&fake.active, __ATOMIC_SEQ_CST), 0);
        EXPECT_EQ(test_driver_status(&d), 0);
        test_driver_start(&d, dev, 0, 64);
    }
    fake.delay_us = 0;
    gpa_t buf = test_driver_alloc(&d, 512);
    EXPECT_EQ(request(IN, 7, buf, 512), OK);
    EXPECT_EQ(byte_ptr(buf)[0], 7);
    end();
}

/* Freed with requests in flight. */
TEST(free_with_requests_in_flight)
{
    begin(false, 2, 0);
    fake.delay_us = 20000;
    for (unsigned k = 0; k < 8; k++)
        send_read(k % 2);
    end();
    EXPECT_EQ(fake.active, 0);
}
