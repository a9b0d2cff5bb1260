/* virtio network card under a hostile driver; the backend checks what it is sent and sends frames
 * of all sizes. */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/net.h"
#include "device/virtio/test_fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct net_client client;
static uint8_t frame[70000];

static void fake_send(struct net_backend *b, const struct iovec *iov, int iovcnt)
{
    size_t size = 0;

    for (int i = 0; i < iovcnt; i++) {
        memcpy(frame + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    if (size < 14 || size > 14 + 65535)
        abort(); /* not what net.h promises a backend */
    if (frame[0] & 1)
        (void)client.receive(client.card, frame, size);
}

static void fake_can_receive(struct net_backend *b)
{
    (void)client.receive(client.card, frame, 100);
}

static void fake_set_client(struct net_backend *b, const struct net_client *c)
{
    client = *c;
}

static void fake_free(struct net_backend *b)
{
}

static const struct net_ops fake_ops = {
    .name = "fake",
    .send = fake_send,
    .can_receive = fake_can_receive,
    .set_client = fake_set_client,
    .free = fake_free,
};

static struct virtio_device *make(struct test_driver *d)
{
    static struct net_backend backend = {.ops = &fake_ops, .best_mtu = 65520};
    struct virtio_net_config c = {.mac = {2}};
    struct virtio_device *dev = NULL;

    assert(!virtio_net_new(d->mem, d->loop, &c, &backend, &dev, NULL));
    return dev;
}

static void host(struct virtio_device *dev, unsigned what)
{
    if (what == 0 || what == 1)
        virtio_net_set_link(dev, what);
    else
        (void)client.receive(client.card, frame, 14 + what * 257);
    client.flush(client.card);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {
        .make = make,
        .host = host,
        .features = BIT(VIRTIO_F_INDIRECT_DESC) | BIT(0) | BIT(1) | BIT(11) | BIT(12) | BIT(15) |
                    BIT(16) | BIT(17) | BIT(18) | BIT(23),
    };

    log_set_level(LOG_ERROR);
    test_fuzz_device(&fuzz, data, size);
    return 0;
}
