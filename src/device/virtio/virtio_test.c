/* The core of virtio devices: negotiation, reset, signals. Spec: VIRTIO 1.2 §2.1, §2.2, §3.1. */
#include "base/bits.h"
#include "base/test.h"
#include "device/virtio/test_driver.h"
#include "device/virtio/test_loopback.h"
#include "device/virtio/virtio.h"

static struct test_driver d;
static struct loopback *l;

static void begin(bool threaded)
{
    test_driver_init(&d, threaded);
    l = loopback_new(d.mem, d.loop);
    test_driver_attach(&d, &l->dev);
    test_driver_set_status(&d, VIRTIO_ACKNOWLEDGE);
    test_driver_set_status(&d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
}

static uint8_t choose(uint64_t features)
{
    mutex_lock(&l->dev.lock);
    virtio_set_features(&l->dev, features);
    virtio_set_status(&l->dev, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    mutex_unlock(&l->dev.lock);
    return test_driver_status(&d) & VIRTIO_FEATURES_OK;
}

TEST(feature_negotiation)
{
    begin(false);
    EXPECT_EQ(virtio_offered(&l->dev), 1 | BIT(28) | BIT(29) | BIT(32));
    EXPECT_EQ(choose(1), 0);           /* no VERSION_1: a legacy driver */
    EXPECT_EQ(choose(BIT(32) | 2), 0); /* not offered */
    l->refuse_features = true;
    EXPECT_EQ(choose(BIT(32) | 1), 0);
    l->refuse_features = false;
    EXPECT_EQ(choose(BIT(32) | 1), VIRTIO_FEATURES_OK);
    mutex_lock(&l->dev.lock);
    virtio_set_features(&l->dev, BIT(32)); /* too late */
    mutex_unlock(&l->dev.lock);
    EXPECT_EQ(l->dev.features, BIT(32) | 1);
    test_driver_done(&d);
}

TEST(driver_ok_needs_features_ok)
{
    begin(false);
    test_driver_set_status(&d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK);
    EXPECT_EQ(test_driver_status(&d), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    EXPECT_EQ(l->readies, 0);
    test_driver_done(&d);
}

TEST(status_bits_are_only_set_and_needs_reset_is_ours)
{
    begin(false);
    EXPECT_TRUE(choose(BIT(32)));
    test_driver_set_status(&d, VIRTIO_NEEDS_RESET | VIRTIO_ACKNOWLEDGE);
    EXPECT_EQ(test_driver_status(&d), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    test_driver_set_status(&d, 0);
    EXPECT_EQ(test_driver_status(&d), 0);
    EXPECT_EQ(l->resets, 1);
    test_driver_done(&d);
}

TEST(queues_are_set_up_between_features_and_driver_ok)
{
    begin(false);
    test_driver_set_up_queue(&d, 0, 16);
    EXPECT_TRUE(!l->dev.queues[0].enabled);
    EXPECT_TRUE(choose(BIT(32)));
    test_driver_set_up_queue(&d, 0, 16);
    EXPECT_TRUE(l->dev.queues[0].enabled);
    test_driver_set_status(&d, VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
    EXPECT_EQ(l->readies, 1);
    test_driver_set_up_queue(&d, 1, 16);
    EXPECT_TRUE(!l->dev.queues[1].enabled);
    test_driver_set_status(&d, 0);
    EXPECT_TRUE(!l->dev.queues[0].enabled);
    EXPECT_EQ(l->dev.queues[0].size, 64);
    EXPECT_EQ(l->dev.features, 0);
    test_driver_done(&d);
}

TEST(kicks_before_driver_ok_and_after_reset_do_nothing)
{
    begin(false);
    EXPECT_TRUE(choose(BIT(32)));
    test_driver_set_up_queue(&d, 0, 16);
    test_driver_kick(&d, 0);
    EXPECT_EQ(l->kicks, 0);
    test_driver_set_status(&d, VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
    test_driver_kick(&d, 0);
    EXPECT_EQ(l->kicks, 1);
    test_driver_kick(&d, 1); /* not enabled */
    EXPECT_EQ(l->kicks, 1);
    test_driver_set_status(&d, 0);
    test_driver_kick(&d, 0);
    EXPECT_EQ(l->kicks, 1);
    virtio_queue_signal(&l->dev, 99);
    test_driver_done(&d);
}

/* PCI Local Bus 3.0 §6.2.2: a function that is no bus master does no DMA. */
TEST(no_dma_without_bus_master)
{
    test_driver_init(&d, false);
    l = loopback_new(d.mem, d.loop);
    test_driver_start(&d, &l->dev, 0, 16);
    struct test_buf buf = {test_driver_alloc(&d, 4), 4, true};
    struct test_used used;
    test_driver_add(&d, 0, &buf, 1);
    d.no_dma = true;
    test_driver_kick(&d, 0);
    EXPECT_TRUE(!test_driver_take(&d, 0, &used));
    d.no_dma = false;
    test_driver_kick(&d, 0);
    EXPECT_TRUE(test_driver_take(&d, 0, &used));
    test_driver_done(&d);
}

TEST(configuration_space_has_an_end)
{
    begin(false);
    uint8_t buf[8];
    test_driver_config_write(&d, 8, "abcdefgh", 8); /* 4 of them are inside */
    memset(buf, 0xff, sizeof(buf));
    test_driver_config_read(&d, 8, buf, 8);
    EXPECT_MEM(buf, "abcd\0\0\0\0", 8);
    memset(buf, 0xff, sizeof(buf));
    test_driver_config_write(&d, 12, "x", 1);
    test_driver_config_read(&d, 4000000000u, buf, 8);
    EXPECT_MEM(buf, "\0\0\0\0\0\0\0\0", 8);
    test_driver_done(&d);
}

TEST(configuration_change_interrupts_after_driver_ok)
{
    begin(false);
    mutex_lock(&l->dev.lock);
    virtio_config_changed(&l->dev);
    mutex_unlock(&l->dev.lock);
    EXPECT_EQ(d.config_interrupts, 0);
    test_driver_start(&d, &l->dev, 0, 16);
    mutex_lock(&l->dev.lock);
    uint8_t generation = l->dev.generation;
    virtio_config_changed(&l->dev);
    EXPECT_EQ(l->dev.generation, (uint8_t)(generation + 1));
    mutex_unlock(&l->dev.lock);
    EXPECT_EQ(d.config_interrupts, 1);
    test_driver_done(&d);
}

TEST(signals_reach_the_loop_and_none_is_lost)
{
    test_driver_init(&d, true);
    l = loopback_new(d.mem, d.loop);
    test_driver_start(&d, &l->dev, BIT(VIRTIO_F_EVENT_IDX), 16);
    gpa_t in = test_driver_alloc(&d, 8);
    gpa_t out = test_driver_alloc(&d, 8);
    struct test_buf bufs[] = {
        {out, 8, false},
        {in,  8, true },
    };
    for (uint64_t i = 0; i < 2000; i++) {
        store_le64(test_driver_ptr(&d, out), i);
        ASSERT_EQ(test_driver_request(&d, i & 1, bufs, 2), 8);
        ASSERT_EQ(load_le64(test_driver_ptr(&d, in)), i);
    }
    EXPECT_EQ(l->requests, 2000);
    test_driver_done(&d);
}

/* Resets from one thread while the loop serves requests: no crash, and the device works at the end.
 */
TEST(reset_storm)
{
    test_driver_init(&d, true);
    l = loopback_new(d.mem, d.loop);
    struct test_buf buf = {test_driver_alloc(&d, 64), 64, true};
    struct test_used used;
    for (int i = 0; i < 300; i++) {
        test_driver_start(&d, &l->dev, 0, 16);
        for (int k = 0; k < 5; k++) {
            test_driver_add(&d, 0, &buf, 1);
            test_driver_kick(&d, 0);
        }
        test_driver_set_status(&d, 0);
    }
    test_driver_start(&d, &l->dev, 0, 16);
    test_driver_add(&d, 0, &buf, 1);
    test_driver_kick(&d, 0);
    EXPECT_TRUE(test_driver_wait(&d, 0, &used));
    test_driver_done(&d);
}
