/* virtio entropy device. Spec: VIRTIO 1.2 §5.4. */
#include "base/test.h"
#include "device/virtio/rng.h"
#include "device/virtio/test_driver.h"

static struct test_driver d;
static struct virtio_device *dev;

static void begin(void)
{
    test_driver_init(&d, true);
    ASSERT_EQ(virtio_rng_new(d.mem, d.loop, &dev, NULL), 0);
    test_driver_start(&d, dev, 0, 16);
}

TEST(fills_buffers)
{
    begin();
    struct test_buf bufs[] = {
        {test_driver_alloc(&d, 3),    3,    true},
        {test_driver_alloc(&d, 1000), 1000, true},
    };
    uint8_t old[1000];
    uint8_t zero[1000] = {0};

    EXPECT_EQ(test_driver_request(&d, 0, bufs, 2), 1003);
    memcpy(old, test_driver_ptr(&d, bufs[1].gpa), 1000);
    EXPECT_TRUE(memcmp(old, zero, 1000));
    EXPECT_EQ(test_driver_request(&d, 0, bufs, 2), 1003);
    EXPECT_TRUE(memcmp(old, test_driver_ptr(&d, bufs[1].gpa), 1000));
    test_driver_done(&d);
}

TEST(large_and_readable_buffers)
{
    begin();
    struct test_buf big = {test_driver_alloc(&d, 1 << 20), 1 << 20, true};
    struct test_buf readable = {test_driver_alloc(&d, 16), 16, false};

    EXPECT_EQ(test_driver_request(&d, 0, &big, 1), 65536);
    EXPECT_EQ(test_driver_request(&d, 0, &readable, 1), 0);
    test_driver_done(&d);
}

TEST(many_requests_in_one_kick)
{
    begin();
    struct test_buf buf = {test_driver_alloc(&d, 8), 8, true};
    struct test_used used;

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 16; i++)
            test_driver_add(&d, 0, &buf, 1);
        test_driver_kick(&d, 0);
        for (int i = 0; i < 16; i++)
            ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    }
    test_driver_done(&d);
}
