/* virtio socket device under a hostile driver, with programs on the host that listen, connect,
 * talk, read and hang up. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "device/virtio/test_fuzz.h"
#include "device/virtio/vsock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/posada-fuzz-vsock-XXXXXX";
static int listener = -1;
static int peers[8];
static unsigned peer_count;

static struct sockaddr_un address(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", folder, name);
    return a;
}

static struct virtio_device *make(struct test_driver *d)
{
    struct virtio_vsock_config c = {.cid = 3, .dir = folder};
    struct virtio_device *dev = NULL;

    assert(!virtio_vsock_new(d->mem, d->loop, &c, &dev, NULL));
    return dev;
}

static void add_peer(int fd)
{
    if (fd >= 0 && peer_count < ARRAY_SIZE(peers))
        peers[peer_count++] = fd;
    else
        fd_close(fd);
}

static void connect_peer(void)
{
    struct sockaddr_un a = address("vsock.sock");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
        add_peer(fd);
    else
        fd_close(fd);
}

static void stop(void *arg)
{
    loop_stop(arg);
}

static void host(struct virtio_device *dev, unsigned what)
{
    static char buf[65536] = "CONNECT 1024\ndata";
    int fd = peer_count ? peers[what / 8 % peer_count] : -1;

    switch (what % 8) {
    case 0:
        connect_peer();
        break;
    case 1:
        add_peer(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
        break;
    case 2:
        (void)!send(fd, buf, 17, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 3:
        (void)!send(fd, buf, 5 + 250 * what, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 4:
        (void)!recv(fd, buf + 64, 30000, MSG_DONTWAIT);
        break;
    case 5:
        (void)shutdown(fd, what & 64 ? SHUT_WR : SHUT_RDWR);
        break;
    default:
        break;
    }
    if (!loop_post(dev->loop, stop, dev->loop)) /* one round */
        loop_run(dev->loop);
}

static void clean_up(void)
{
    struct sockaddr_un a = address("52");

    (void)unlink(a.sun_path);
    (void)rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {
        .make = make,
        .host = host,
        .features = BIT(VIRTIO_F_INDIRECT_DESC),
    };

    log_set_level(LOG_ERROR);
    if (listener < 0) {
        if (!mkdtemp(folder) || atexit(clean_up))
            return 0;
        struct sockaddr_un a = address("52");
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 5))
            return 0;
    }
    peer_count = 0;
    test_fuzz_device(&fuzz, data, size);
    while (peer_count)
        fd_close(peers[--peer_count]);
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;)
        fd_close(fd);
    return 0;
}
