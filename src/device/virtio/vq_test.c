/* Split virtqueues: what they must carry, and every way in which a guest can get them wrong. Spec:
 * VIRTIO 1.2 §2.7. */
#include "base/bits.h"
#include "base/test.h"
#include "device/virtio/test_driver.h"
#include "device/virtio/test_loopback.h"
#include "device/virtio/vq.h"

#include <stdlib.h>

static struct test_driver d;
static struct loopback *l;

static void start(uint64_t features, uint16_t size)
{
    test_driver_init(&d, false);
    l = loopback_new(d.mem, d.loop);
    uint8_t status = test_driver_start(&d, &l->dev, features, size);
    ASSERT_EQ(status, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

/** Kick queue 0 and expect that the device breaks, tells so, and stays broken. */
static void expect_break(void)
{
    struct test_used used;
    unsigned before = d.config_interrupts;

    test_driver_kick(&d, 0);
    EXPECT_TRUE(test_driver_status(&d) & VIRTIO_NEEDS_RESET);
    EXPECT_EQ(d.config_interrupts, before + 1);
    EXPECT_TRUE(!test_driver_take(&d, 0, &used));
    unsigned kicks = l->kicks;
    test_driver_kick(&d, 0);
    EXPECT_EQ(l->kicks, kicks);
    EXPECT_EQ(d.mmio_accesses, 0);
    /* A reset cures it. */
    test_driver_start(&d, &l->dev, 0, 16);
    gpa_t out = test_driver_put(&d, "ping", 4);
    gpa_t in = test_driver_alloc(&d, 4);
    struct test_buf bufs[] = {
        {out, 4, false},
        {in,  4, true },
    };
    EXPECT_EQ(test_driver_request(&d, 0, bufs, 2), 4);
    EXPECT_MEM(test_driver_ptr(&d, in), "ping", 4);
    test_driver_done(&d);
}

TEST(carries_a_request)
{
    start(0, 16);
    gpa_t out1 = test_driver_put(&d, "hello ", 6);
    gpa_t out2 = test_driver_put(&d, "world", 5);
    gpa_t in1 = test_driver_alloc(&d, 3);
    gpa_t in2 = test_driver_alloc(&d, 100);
    struct test_buf bufs[] = {
        {out1, 6,   false},
        {out2, 5,   false},
        {in1,  3,   true },
        {in2,  100, true },
    };
    EXPECT_EQ(test_driver_request(&d, 0, bufs, 4), 11);
    EXPECT_MEM(test_driver_ptr(&d, in1), "hel", 3);
    EXPECT_MEM(test_driver_ptr(&d, in2), "lo world", 8);
    test_driver_done(&d);
}

TEST(carries_an_indirect_request)
{
    start(BIT(VIRTIO_F_INDIRECT_DESC), 4);
    struct test_buf bufs[20];

    for (unsigned i = 0; i < 10; i++) {
        bufs[i] = (struct test_buf){test_driver_put(&d, "abcdefghij", 10), 10, false};
        bufs[10 + i] = (struct test_buf){test_driver_alloc(&d, 10), 10, true};
    }
    struct test_used used;
    uint16_t head = test_driver_add_indirect(&d, 0, bufs, 20);
    test_driver_kick(&d, 0);
    ASSERT_TRUE(test_driver_take(&d, 0, &used));
    EXPECT_EQ(used.id, head);
    EXPECT_EQ(used.len, 100);
    EXPECT_MEM(test_driver_ptr(&d, bufs[19].gpa), "abcdefghij", 10);
    test_driver_done(&d);
}

TEST(indices_wrap)
{
    start(0, 4);
    gpa_t out = test_driver_alloc(&d, 4);
    gpa_t in = test_driver_alloc(&d, 4);
    struct test_buf bufs[] = {
        {out, 4, false},
        {in,  4, true },
    };
    for (uint32_t i = 0; i < 70000; i++) {
        store_le32(test_driver_ptr(&d, out), i);
        ASSERT_EQ(test_driver_request(&d, 0, bufs, 2), 4);
        ASSERT_EQ(load_le32(test_driver_ptr(&d, in)), i);
    }
    test_driver_done(&d);
}

TEST(order_and_batch)
{
    start(0, 16);
    gpa_t in = test_driver_alloc(&d, 4);
    struct test_buf buf = {in, 4, true};
    uint16_t heads[16];
    struct test_used used;

    for (int i = 0; i < 16; i++)
        heads[i] = test_driver_add(&d, 0, &buf, 1);
    test_driver_kick(&d, 0);
    for (int i = 0; i < 16; i++) {
        ASSERT_TRUE(test_driver_take(&d, 0, &used));
        EXPECT_EQ(used.id, heads[i]);
        EXPECT_EQ(used.len, 0);
    }
    EXPECT_EQ(l->kicks, 1);
    test_driver_done(&d);
}

/* §2.7.7: "the device MUST NOT send a notification if flags is 1" (without EVENT_IDX). */
TEST(interrupt_flag)
{
    start(0, 16);
    struct test_buf buf = {test_driver_alloc(&d, 4), 4, true};

    test_driver_request(&d, 0, &buf, 1);
    EXPECT_EQ(d.queues[0].interrupts, 1);
    test_driver_set_avail_flags(&d, 0, 1);
    test_driver_request(&d, 0, &buf, 1);
    EXPECT_EQ(d.queues[0].interrupts, 1);
    test_driver_set_avail_flags(&d, 0, 0);
    test_driver_request(&d, 0, &buf, 1);
    EXPECT_EQ(d.queues[0].interrupts, 2);
    EXPECT_EQ(test_driver_used_flags(&d, 0), 0); /* notifications wanted again */
    test_driver_done(&d);
}

/* §2.7.7: with EVENT_IDX, interrupt when used_event's entry was used. §2.7.10: avail_event follows.
 */
TEST(event_index)
{
    start(BIT(VIRTIO_F_EVENT_IDX), 8);
    struct test_buf buf = {test_driver_alloc(&d, 4), 4, true};

    test_driver_set_used_event(&d, 0, 2);
    test_driver_request(&d, 0, &buf, 1); /* the first one always */
    EXPECT_EQ(d.queues[0].interrupts, 1);
    test_driver_request(&d, 0, &buf, 1);
    EXPECT_EQ(d.queues[0].interrupts, 1);
    test_driver_request(&d, 0, &buf, 1); /* entry 2 */
    EXPECT_EQ(d.queues[0].interrupts, 2);
    test_driver_request(&d, 0, &buf, 1);
    EXPECT_EQ(d.queues[0].interrupts, 2);
    EXPECT_EQ(test_driver_avail_event(&d, 0), 4);
    EXPECT_EQ(test_driver_used_flags(&d, 0), 0); /* §2.7.10.1: MUST be 0 */
    test_driver_done(&d);
}

TEST(refuses_bad_ring_setup)
{
    static const struct {
        uint16_t size;
        uint64_t desc, avail, used;
    } bad[] = {
        {0,   TEST_RAM,              TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
        {3,   TEST_RAM,              TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
        {128, TEST_RAM,              TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
        {16,  TEST_RAM + 8,          TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
        {16,  TEST_RAM,              TEST_RAM + 0x1001,            TEST_RAM + 0x2000            },
        {16,  TEST_RAM,              TEST_RAM + 0x1000,            TEST_RAM + 0x2002            },
        {16,  0,                     TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
        {16,  TEST_MMIO,             TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
        {16,  TEST_RAM,              TEST_MMIO,                    TEST_RAM + 0x2000            },
        {16,  TEST_RAM,              TEST_RAM + 0x1000,            TEST_ROM                     },
        {16,  TEST_RAM,              TEST_RAM + 0x1000,            TEST_MMIO                    },
        {16,  TEST_RAM,              TEST_RAM + 0x1000,            TEST_RAM + TEST_RAM_SIZE - 16},
        {16,  TEST_RAM,              TEST_RAM + TEST_RAM_SIZE - 2, TEST_RAM + 0x2000            },
        {16,  0xfffffffffffffff0ull, TEST_RAM + 0x1000,            TEST_RAM + 0x2000            },
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        start(0, 16);
        test_driver_set_status(&d, 0);
        test_driver_set_status(&d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
        mutex_lock(&l->dev.lock);
        virtio_set_features(&l->dev, BIT(VIRTIO_F_VERSION_1));
        virtio_set_status(&l->dev, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
        struct vq *q = &l->dev.queues[0];
        q->size = bad[i].size;
        q->desc = GPA(bad[i].desc);
        q->avail = GPA(bad[i].avail);
        q->used = GPA(bad[i].used);
        virtio_queue_enable(&l->dev, 0);
        mutex_unlock(&l->dev.lock);
        EXPECT_TRUE(!q->enabled);
        EXPECT_EQ(l->dev.status,
                  VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_NEEDS_RESET);
        EXPECT_EQ(d.config_interrupts, 0); /* before DRIVER_OK */
        test_driver_done(&d);
    }
}

TEST(breaks_on_a_descriptor_loop)
{
    start(0, 16);
    gpa_t buf = test_driver_alloc(&d, 16);
    test_driver_desc(&d, 0, 0, buf.v, 4, TEST_NEXT, 1);
    test_driver_desc(&d, 0, 1, buf.v, 4, TEST_NEXT, 0);
    test_driver_publish(&d, 0, 0);
    expect_break();
}

TEST(breaks_on_a_descriptor_that_is_its_own_next)
{
    start(0, 16);
    test_driver_desc(&d, 0, 0, test_driver_alloc(&d, 4).v, 4, TEST_NEXT | TEST_WRITE, 0);
    test_driver_publish(&d, 0, 0);
    expect_break();
}

TEST(breaks_on_wild_heads_and_nexts)
{
    start(0, 16);
    test_driver_publish(&d, 0, 16);
    expect_break();
    start(0, 16);
    test_driver_publish(&d, 0, 0xffff);
    expect_break();
    start(0, 16);
    test_driver_desc(&d, 0, 0, test_driver_alloc(&d, 4).v, 4, TEST_NEXT, 16);
    test_driver_publish(&d, 0, 0);
    expect_break();
}

TEST(breaks_on_an_index_jump)
{
    start(0, 16);
    test_driver_desc(&d, 0, 0, test_driver_alloc(&d, 4).v, 4, 0, 0);
    d.queues[0].avail_idx = 16; /* publish stores 17, of a ring of 16 */
    test_driver_publish(&d, 0, 0);
    expect_break();
    start(0, 16);
    d.queues[0].avail_idx = 0xfffe; /* backwards */
    test_driver_publish(&d, 0, 0);
    expect_break();
}

TEST(breaks_on_bad_buffers)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags;
    } bad[] = {
        {0,                            4,          0            },
        {TEST_RAM - 4,                 8,          0            },
        {TEST_RAM + TEST_RAM_SIZE - 4, 8,          0            },
        {TEST_RAM,                     0xffffffff, TEST_WRITE   },
        {0xffffffffffffffffull,        1,          0            },
        {0xffffffffffffffffull,        0xffffffff, TEST_WRITE   },
        {TEST_RAM,                     0,          0            }, /* of no size */
        {TEST_MMIO,                    4,          0            }, /* DMA onto registers */
        {TEST_MMIO,                    4,          TEST_WRITE   },
        {TEST_ROM,                     4,          TEST_WRITE   },
        {TEST_ROM + 4092,              8,          0            },
        {TEST_RAM,                     4,          TEST_INDIRECT}, /* not negotiated */
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        start(0, 16);
        test_driver_desc(&d, 0, 0, bad[i].addr, bad[i].len, bad[i].flags, 0);
        test_driver_publish(&d, 0, 0);
        expect_break();
    }
}

TEST(reads_from_rom)
{
    start(0, 16);
    gpa_t in = test_driver_alloc(&d, 4);
    memset(test_driver_ptr(&d, in), 0xff, 4);
    struct test_buf bufs[] = {
        {GPA(TEST_ROM), 4, false},
        {in,            4, true },
    };
    EXPECT_EQ(test_driver_request(&d, 0, bufs, 2), 4);
    EXPECT_EQ(load_le32(test_driver_ptr(&d, in)), 0);
    test_driver_done(&d);
}

TEST(breaks_on_readable_after_writable)
{
    start(0, 16);
    gpa_t buf = test_driver_alloc(&d, 16);
    test_driver_desc(&d, 0, 0, buf.v, 4, TEST_NEXT | TEST_WRITE, 1);
    test_driver_desc(&d, 0, 1, buf.v, 4, 0, 0);
    test_driver_publish(&d, 0, 0);
    expect_break();
}

TEST(breaks_on_bad_indirect_tables)
{
    static const struct {
        uint64_t addr; /* 0: a good table */
        uint32_t len;
        uint16_t flags;       /* of the descriptor that refers to the table */
        uint16_t inner_flags; /* of the table's first entry */
        uint16_t inner_next;
    } bad[] = {
        {0,         0,                 TEST_INDIRECT,             0,             0     },
        {0,         24,                TEST_INDIRECT,             0,             0     },
        {0,         32,                TEST_INDIRECT | TEST_NEXT, 0,             0     },
        {0,         32,                TEST_INDIRECT,             TEST_NEXT,     2     }, /* leaves it */
        {0,         32,                TEST_INDIRECT,             TEST_NEXT,     0     }, /* loops */
        {0,         32,                TEST_INDIRECT,             TEST_NEXT,     0xffff},
        {0,         32,                TEST_INDIRECT,             TEST_INDIRECT, 0     }, /* nested */
        {TEST_MMIO, 32,                TEST_INDIRECT,             0,             0     },
        {16,        32,                TEST_INDIRECT,             0,             0     },
        {TEST_RAM,  TEST_RAM_SIZE * 2, TEST_INDIRECT,             0,             0     },
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        start(BIT(VIRTIO_F_INDIRECT_DESC), 16);
        gpa_t table = test_driver_alloc(&d, 64);
        test_driver_desc_at(&d, table, 0, table.v, 4, bad[i].inner_flags, bad[i].inner_next);
        test_driver_desc_at(&d, table, 1, table.v, 4, 0, 0);
        test_driver_desc(&d, 0, 0, bad[i].addr ? bad[i].addr : table.v, bad[i].len, bad[i].flags,
                         1);
        test_driver_desc(&d, 0, 1, table.v, 4, 0, 0);
        test_driver_publish(&d, 0, 0);
        expect_break();
    }
}

/* A table of 2^20 entries that are all one chain is cut off at VQ_MAX_IOV. */
TEST(breaks_on_too_long_chains)
{
    for (unsigned n = VQ_MAX_IOV; n <= VQ_MAX_IOV + 1; n++) {
        start(BIT(VIRTIO_F_INDIRECT_DESC), 16);
        struct test_buf *bufs = calloc(n, sizeof(*bufs));
        gpa_t one = test_driver_alloc(&d, 1);
        struct test_used used;

        ASSERT_TRUE(bufs);
        for (unsigned i = 0; i < n; i++)
            bufs[i] = (struct test_buf){one, 1, false};
        test_driver_add_indirect(&d, 0, bufs, n);
        free(bufs);
        if (n > VQ_MAX_IOV) {
            expect_break();
        } else {
            test_driver_kick(&d, 0);
            EXPECT_TRUE(test_driver_take(&d, 0, &used));
            test_driver_done(&d);
        }
    }
}

TEST(copies_at_offsets)
{
    char out[] = "0123456789";
    char in[11] = "..........";
    struct vq_chain c = {
        .out_count = 3,
        .in_count = 2,
        .iov = {{out, 3}, {out + 3, 4}, {out + 7, 3}, {in, 5}, {in + 5, 5}},
    };
    char buf[16] = {0};

    EXPECT_EQ(vq_read(&c, 2, buf, 6), 6);
    EXPECT_STR(buf, "234567");
    EXPECT_EQ(vq_read(&c, 8, buf, 16), 2);
    EXPECT_EQ(vq_read(&c, 10, buf, 1), 0);
    EXPECT_EQ(vq_read(&c, SIZE_MAX, buf, 1), 0);
    EXPECT_EQ(vq_write(&c, 4, "ab", 2), 2);
    EXPECT_EQ(vq_write(&c, 9, "xyz", 3), 1);
    EXPECT_STR(in, "....ab...x");
}
