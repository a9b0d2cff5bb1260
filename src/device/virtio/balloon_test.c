/* virtio memory balloon. Spec: VIRTIO 1.2 §5.5. */
#include "base/bits.h"
#include "base/log.h"
#include "base/test.h"
#include "device/virtio/balloon.h"
#include "device/virtio/test_driver.h"

#include <unistd.h>

static struct test_driver d;
static struct virtio_device *dev;

enum { INFLATE, DEFLATE, STATS, REPORTING };
#define FEATURES (BIT(1) | BIT(2) | BIT(5))
#define PAGES    (TEST_RAM + (8u << 20)) /* untouched by rings */

static void begin(void)
{
    test_driver_init(&d, true);
    ASSERT_EQ(virtio_balloon_new(d.mem, d.loop, &dev, NULL), 0);
    test_driver_start(&d, dev, FEATURES, 16);
    memset(test_driver_ptr(&d, GPA(PAGES)), 0x77, 1 << 20);
}

static uint8_t byte_of_page(unsigned page)
{
    return *(uint8_t *)test_driver_ptr(&d, GPA(PAGES + page * 4096));
}

static void send_pages(unsigned queue, const uint32_t *pfns, uint32_t count)
{
    uint8_t raw[1024 * 4];

    for (uint32_t i = 0; i < count; i++)
        store_le32(raw + (size_t)4 * i, pfns[i]);
    struct test_buf buf = {test_driver_put(&d, raw, (size_t)4 * count), 4 * count, false};
    EXPECT_EQ(test_driver_request(&d, queue, &buf, 1), 0);
}

TEST(inflating_gives_pages_back)
{
    const uint32_t base = PAGES / 4096;
    const uint32_t up[] = {base, base + 1, base + 2, base + 7};
    const uint32_t down[] = {base + 22, base + 21, base + 20};

    begin();
    send_pages(INFLATE, up, 4);
    send_pages(INFLATE, down, 3);
    for (unsigned i = 0; i < 30; i++) {
        bool given = i <= 2 || i == 7 || (i >= 20 && i <= 22);
        EXPECT_EQ(byte_of_page(i), given ? 0 : 0x77);
    }
    send_pages(DEFLATE, up, 4);
    EXPECT_EQ(byte_of_page(3), 0x77);
    test_driver_done(&d);
}

TEST(more_pages_than_one_batch)
{
    uint32_t pfns[256 + 40];

    begin();
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++)
        pfns[i] = PAGES / 4096 + i % 200;
    send_pages(INFLATE, pfns, ARRAY_SIZE(pfns));
    for (unsigned i = 0; i < 256; i++)
        ASSERT_EQ(byte_of_page(i), i < 200 ? 0 : 0x77);
    test_driver_done(&d);
}

TEST(wild_page_numbers_are_ignored)
{
    const uint32_t bad[] = {0, 1, TEST_MMIO / 4096, 0xffffffff, 0xfffffffe, 0x100000};

    begin();
    uint64_t errors = guest_error_count();
    send_pages(INFLATE, bad, ARRAY_SIZE(bad));
    EXPECT_TRUE(guest_error_count() > errors);
    EXPECT_EQ(test_driver_status(&d) & VIRTIO_NEEDS_RESET, 0);
    struct test_buf odd = {test_driver_alloc(&d, 7), 7, false}; /* one number and a bit */
    EXPECT_EQ(test_driver_request(&d, INFLATE, &odd, 1), 0);
    test_driver_done(&d);
}

TEST(free_page_reporting)
{
    begin();
    for (unsigned queue = REPORTING; queue <= REPORTING + 1; queue++) {
        memset(test_driver_ptr(&d, GPA(PAGES)), 0x77, 1 << 20);
        struct test_buf bufs[] = {
            {GPA(PAGES),             4096 * 4, true},
            {GPA(PAGES + 4096 * 10), 4096,     true},
        };
        EXPECT_EQ(test_driver_request(&d, queue, bufs, 2), 0);
        EXPECT_EQ(byte_of_page(0), 0);
        EXPECT_EQ(byte_of_page(3), 0);
        EXPECT_EQ(byte_of_page(4), 0x77);
        EXPECT_EQ(byte_of_page(10), 0);
        EXPECT_EQ(byte_of_page(11), 0x77);
    }
    test_driver_done(&d);
}

TEST(target_and_actual)
{
    uint8_t config[8];
    uint8_t pages[4];

    begin();
    virtio_balloon_set_target(dev, 1 << 20);
    EXPECT_EQ(d.config_interrupts, 1);
    test_driver_config_read(&d, 0, config, 8);
    EXPECT_EQ(load_le32(config), 256);
    store_le32(pages, 200);
    test_driver_config_write(&d, 0, pages, 4); /* not the driver's */
    test_driver_config_write(&d, 4, pages, 4);
    test_driver_config_read(&d, 0, config, 8);
    EXPECT_EQ(load_le32(config), 256);
    EXPECT_EQ(virtio_balloon_actual(dev), 200 * 4096);
    virtio_balloon_set_target(dev, UINT64_MAX);
    test_driver_config_read(&d, 0, config, 4);
    EXPECT_EQ(load_le32(config), TEST_RAM_SIZE / 4096);
    test_driver_done(&d);
}

TEST(statistics)
{
    struct virtio_balloon_stats s;
    struct test_used used;
    uint8_t raw[30];

    begin();
    virtio_balloon_get_stats(dev, &s);
    EXPECT_EQ(s.total, UINT64_MAX);
    store_le16(raw, 5);
    store_le64(raw + 2, 123456);
    store_le16(raw + 10, 4);
    store_le64(raw + 12, 1000);
    store_le16(raw + 20, 999); /* unknown */
    store_le64(raw + 22, 1);
    struct test_buf buf = {test_driver_put(&d, raw, 30), 30, false};
    test_driver_add(&d, STATS, &buf, 1);
    test_driver_kick(&d, STATS);
    for (int i = 0; i < 5000 && s.total == UINT64_MAX; i++) {
        EXPECT_TRUE(!test_driver_take(&d, STATS, &used)); /* kept until the next question */
        usleep(100);
        mutex_lock(&dev->lock);
        bool seen = dev->queues[STATS].next_avail;
        mutex_unlock(&dev->lock);
        if (seen)
            virtio_balloon_get_stats(dev, &s);
    }
    EXPECT_EQ(s.total, 123456);
    EXPECT_EQ(s.free, 1000);
    EXPECT_EQ(s.caches, UINT64_MAX);
    ASSERT_TRUE(test_driver_wait(&d, STATS, &used));
    /* Two buffers at once: one comes back. */
    test_driver_add(&d, STATS, &buf, 1);
    test_driver_add(&d, STATS, &buf, 1);
    test_driver_kick(&d, STATS);
    ASSERT_TRUE(test_driver_wait(&d, STATS, &used));
    test_driver_start(&d, dev, FEATURES, 16);
    virtio_balloon_get_stats(dev, &s);
    EXPECT_EQ(s.total, UINT64_MAX);
    test_driver_done(&d);
}
