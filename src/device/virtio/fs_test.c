/* The file system device: queues, threads, resets. The server behind it: fs_server_test.c.
 * Spec: VIRTIO 1.2 §5.11. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/test.h"
#include "device/virtio/fs.h"
#include "device/virtio/test_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[] = "/tmp/posada-fs-test-XXXXXX";

static void make_folder(void)
{
    char path[64];

    ASSERT_TRUE(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/a", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    ASSERT_TRUE(fd >= 0);
    close(fd);
}

static void remove_folder(void)
{
    char command[64];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    EXPECT_EQ(system(command), 0);
}

static struct test_driver d;

static struct virtio_device *new_device(void)
{
    struct virtio_fs_config config = {.tag = "share0", .host_path = folder};
    struct virtio_device *dev;

    ASSERT_EQ(virtio_fs_new(d.mem, &config, &dev, NULL), 0);
    return dev;
}

/** A request through the device's queue. */
static int device_call(uint32_t opcode, uint64_t node, const void *args, uint32_t size)
{
    struct fuse_in_header head = {
        .len = (uint32_t)sizeof(head) + size, .opcode = opcode, .unique = 5, .nodeid = node};
    struct test_buf b[4] = {
        {.gpa = test_driver_put(&d,   &head, sizeof(head)), .len = sizeof(head)},
        {.gpa = test_driver_put(&d,   args,  size),         .len = size        },
        {.gpa = test_driver_alloc(&d, 16),   .len = 16,     .write = true      },
        {.gpa = test_driver_alloc(&d, 4096), .len = 4096,   .write = true      },
    };
    struct fuse_out_header out;
    uint32_t n = test_driver_request(&d, 1, b, 4);

    memcpy(&out, test_driver_ptr(&d, b[2].gpa), sizeof(out));
    EXPECT_EQ(n, out.len);
    return out.error;
}

TEST(device_serves_its_queue)
{
    struct fuse_init_in in = {.major = 7, .minor = 38, .flags = ~0u};
    uint8_t config[40];

    make_folder();
    test_driver_init(&d, true);
    struct virtio_device *dev = new_device();
    (void)test_driver_start(&d, dev, BIT(28) | BIT(29), 64);
    test_driver_config_read(&d, 0, config, sizeof(config));
    EXPECT_MEM(config, "share0\0\0", 8);
    EXPECT_EQ(load_le32(config + 36), 1);
    EXPECT_EQ(device_call(FUSE_INIT, 0, &in, sizeof(in)), 0);
    for (unsigned i = 0; i < 300; i++)
        ASSERT_EQ(device_call(FUSE_LOOKUP, 1, "a", 2), 0);
    EXPECT_EQ(device_call(FUSE_LOOKUP, 1, "b", 2), -ENOENT);
    /* A reset forgets the mount. */
    (void)test_driver_start(&d, dev, BIT(28) | BIT(29), 64);
    EXPECT_EQ(device_call(FUSE_LOOKUP, 1, "a", 2), -EIO);
    test_driver_done(&d);
    remove_folder();
}

TEST(many_requests_at_once_and_a_reset_among_them)
{
    struct fuse_init_in in = {.major = 7, .minor = 38, .flags = ~0u};
    struct fuse_in_header head = {
        .len = sizeof(head) + 2, .opcode = FUSE_LOOKUP, .unique = 5, .nodeid = 1};
    uint8_t raw[sizeof(head) + 2] = {0};
    struct test_used used;

    make_folder();
    test_driver_init(&d, true);
    struct virtio_device *dev = new_device();
    memcpy(raw, &head, sizeof(head));
    raw[sizeof(head)] = 'a';
    for (unsigned round = 0; round < 20; round++) {
        uint64_t brk = d.brk;

        (void)test_driver_start(&d, dev, BIT(29), 64);
        EXPECT_EQ(device_call(FUSE_INIT, 0, &in, sizeof(in)), 0);
        gpa_t request = test_driver_put(&d, raw, sizeof(raw));
        for (unsigned i = 0; i < 30; i++) {
            struct test_buf b[2] = {
                {.gpa = request, .len = sizeof(raw)},
                { .gpa = test_driver_alloc(&d, 256),         .len = 256, .write = true},
            };
            (void)test_driver_add(&d, 1, b, 2);
        }
        test_driver_kick(&d, 1);
        for (unsigned i = 0; i < (round % 2 ? 30 : 3); i++)
            ASSERT_TRUE(test_driver_wait(&d, 1, &used));
        test_driver_set_status(&d, 0);
        d.brk = brk;
    }
    test_driver_done(&d);
    remove_folder();
}

TEST(bad_configurations_are_named)
{
    struct virtio_fs_config config = {.tag = "t", .host_path = "/nonexistent/x"};
    struct virtio_device *dev = NULL;
    struct error err = {0};

    EXPECT_EQ(virtio_fs_new(NULL, &config, &dev, &err), -ENOENT);
    EXPECT_STR(err.text, "cannot share folder '/nonexistent/x': No such file or directory");
    config.host_path = "/etc/passwd";
    EXPECT_EQ(virtio_fs_new(NULL, &config, &dev, NULL), -ENOTDIR);
    config = (struct virtio_fs_config){.tag = "", .host_path = "/"};
    EXPECT_EQ(virtio_fs_new(NULL, &config, &dev, NULL), -EINVAL);
    EXPECT_TRUE(!dev);
}
