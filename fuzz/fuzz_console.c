/* virtio console, multiport, under a hostile driver; host descriptors are sockets, with a host that
 * types, reads and hangs up. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "device/virtio/console.h"
#include "device/virtio/test_fuzz.h"

#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int console[2], port[2];

static struct virtio_device *make(struct test_driver *d)
{
    struct virtio_console_port ports[] = {
        {"one", port[0], port[0]},
        {"two", -1,      -1     },
    };
    struct virtio_console_config c = {
        .console = true,
        .console_in = console[0],
        .console_out = console[0],
        .ports = ports,
        .port_count = ARRAY_SIZE(ports),
    };
    struct virtio_device *dev = NULL;

    assert(!virtio_console_new(d->mem, d->loop, &c, &dev, NULL));
    return dev;
}

static void host(struct virtio_device *dev, unsigned what)
{
    static char buf[65536];
    int fd = what & 0x80 ? port[1] : console[1];

    switch (what % 5) {
    case 0:
        virtio_console_resize(dev, (uint16_t)what, 25);
        break;
    case 1:
        (void)virtio_console_input(dev, buf, 37 * what);
        break;
    case 2:
        (void)!send(fd, buf, 100 * what, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 3:
        (void)!recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        break;
    case 4:
        (void)shutdown(fd, what & 1 ? SHUT_WR : SHUT_RD);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {
        .make = make,
        .host = host,
        .features = BIT(VIRTIO_F_INDIRECT_DESC) | 3,
    };

    log_set_level(LOG_ERROR);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port))
        return 0;
    test_fuzz_device(&fuzz, data, size);
    for (int i = 0; i < 2; i++) {
        fd_close(console[i]);
        fd_close(port[i]);
    }
    return 0;
}
