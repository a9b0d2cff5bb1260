/* virtio console: the device, and the control messages of the multiport protocol.
 * Spec: VIRTIO 1.2 §5.3.
 *
 * Invariant: what the guest must still be told of a port is one bit each in `due`, so that a guest
 * that asks much and reads nothing costs no memory.
 *
 * Threads: the device's lock; host descriptors are read and written on the device's loop only.
 */
#include "device/virtio/console.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/console_internal.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_ID   3
#define QUEUE_SIZE  128
#define CONFIG_SIZE 8 /* up to and including max_nr_ports */

/** §5.3.6.2 */
enum {
    DEVICE_READY = 0,
    DEVICE_ADD = 1,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    RESIZE = 5,
    PORT_OPEN = 6,
    PORT_NAME = 7,
};

#define CONTROL_BYTES 8
#define CONTROL_SHARE 64 /* messages handled per kick */

static struct virtio_console *console_of(struct virtio_device *dev)
{
    return (struct virtio_console *)dev;
}

/** Build the message for the lowest bit of @p->due, which is cleared. Returns its size. */
static size_t build_control(struct console_port *p, uint8_t *msg)
{
    unsigned bit = p->due & -p->due;
    size_t size = CONTROL_BYTES;
    uint16_t event = DEVICE_ADD;
    uint16_t value = 1;

    p->due &= ~bit;
    if (bit == SEND_CONSOLE) {
        event = CONSOLE_PORT;
    } else if (bit == SEND_NAME) {
        size_t n = strlen(p->name);

        event = PORT_NAME;
        memcpy(msg + size, p->name, n);
        size += n;
    } else if (bit == SEND_RESIZE) {
        event = RESIZE;
        store_le16(msg + size, console_of(p->dev)->columns);
        store_le16(msg + size + 2, console_of(p->dev)->rows);
        size += 4;
    } else if (bit == SEND_OPEN) {
        event = PORT_OPEN;
        value = p->host_open;
    }
    store_le32(msg, p->id);
    store_le16(msg + 4, event);
    store_le16(msg + 6, value);
    return size;
}

void console_send_control(struct virtio_device *dev)
{
    struct virtio_console *c = console_of(dev);
    struct vq *q = &dev->queues[CONTROL_TO_GUEST];
    struct vq_chain chain;
    uint8_t msg[CONTROL_BYTES + VIRTIO_CONSOLE_NAME_MAX];
    bool any = false;

    if (!virtio_has(dev, CONSOLE_F_MULTIPORT))
        return;
    for (unsigned i = 0; i < c->port_count; i++) {
        struct console_port *p = &c->ports[i];

        while (p->due && vq_pop(q, &chain) > 0) {
            size_t size = build_control(p, msg);

            if (chain.in_bytes < size)
                guest_error("console", "a control buffer of %zu bytes is too small",
                            chain.in_bytes);
            vq_push(q, &chain, vq_write(&chain, 0, msg, size));
            any = true;
        }
    }
    if (any)
        virtio_notify(dev, CONTROL_TO_GUEST);
}

static void port_ready(struct console_port *p)
{
    if (p->console)
        p->due |= SEND_CONSOLE | (console_of(p->dev)->columns ? SEND_RESIZE : 0);
    if (p->name[0])
        p->due |= SEND_NAME;
    p->due |= SEND_OPEN;
}

static void handle_control(struct virtio_device *dev, const uint8_t *msg) REQUIRES(dev->lock)
{
    struct virtio_console *c = console_of(dev);
    uint32_t id = load_le32(msg);
    uint16_t event = load_le16(msg + 4);
    uint16_t value = load_le16(msg + 6);

    if (event == DEVICE_READY) {
        for (unsigned i = 0; value && i < c->port_count; i++)
            c->ports[i].due |= c->ports[i].present ? SEND_ADD : 0;
        return;
    }
    if (id >= c->port_count || !c->ports[id].present) {
        guest_error("console", "control event %u for port %u, which is not there", event, id);
        return;
    }
    struct console_port *p = &c->ports[id];
    if (event == PORT_READY) {
        if (value)
            port_ready(p);
    } else if (event == PORT_OPEN) {
        p->guest_open = value;
        port_pump_in(dev, p);
    } else {
        guest_error("console", "unknown control event %u", event);
    }
}

static void receive_control(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[CONTROL_FROM_GUEST];
    struct vq_chain chain;
    uint8_t msg[CONTROL_BYTES];
    unsigned n = 0;

    for (; n < CONTROL_SHARE && vq_pop(q, &chain) > 0; n++) {
        if (vq_read(&chain, 0, msg, sizeof(msg)) == sizeof(msg))
            handle_control(dev, msg);
        else
            guest_error("console", "a control message of %zu bytes", chain.out_bytes);
        vq_push(q, &chain, 0);
    }
    if (n)
        virtio_notify(dev, CONTROL_FROM_GUEST);
    vq_set_notify(q, true);
    if (vq_has_work(q))
        virtio_kick_later(dev, CONTROL_FROM_GUEST);
}

static void console_kick(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct virtio_console *c = console_of(dev);

    if (c->multiport && (index == CONTROL_TO_GUEST || index == CONTROL_FROM_GUEST)) {
        if (index == CONTROL_FROM_GUEST)
            receive_control(dev);
        console_send_control(dev);
        return;
    }
    struct console_port *p = &c->ports[index < 2 ? 0 : index / 2 - 1];
    if (!p->present)
        return;
    if (index % 2)
        port_pump_out(dev, p);
    else
        port_pump_in(dev, p);
}

static bool console_features_ok(struct virtio_device *dev)
{
    /* Without the protocol there is nothing but the console. */
    return console_of(dev)->ports[0].present || virtio_has(dev, CONSOLE_F_MULTIPORT);
}

static void console_ready(struct virtio_device *dev)
{
    /* Bytes may have come in already. */
    virtio_kick_later(dev, port_to_guest(0));
}

static void console_reset(struct virtio_device *dev)
{
    struct virtio_console *c = console_of(dev);

    for (unsigned i = 0; i < c->port_count; i++)
        port_reset(&c->ports[i]);
    cond_broadcast(&c->drained);
}

static void console_config_read(struct virtio_device *dev, unsigned offset, void *buf,
                                unsigned size)
{
    const struct virtio_console *c = console_of(dev);
    uint8_t config[CONFIG_SIZE];

    store_le16(config, c->columns);
    store_le16(config + 2, c->rows);
    store_le32(config + 4, c->port_count);
    memcpy(buf, config + offset, size);
}

static unsigned console_held(struct virtio_device *dev, unsigned index)
{
    const struct virtio_console *c = console_of(dev);

    if (index % 2 == 0 || (c->multiport && index == CONTROL_FROM_GUEST))
        return 0;
    return c->ports[index < 2 ? 0 : index / 2 - 1].held;
}

static int console_save(struct virtio_device *dev, struct state_out *out, struct error *err)
{
    struct virtio_console *c = console_of(dev);

    state_put_u64(out, "columns", c->columns);
    state_put_u64(out, "rows", c->rows);
    for (unsigned i = 0; i < c->port_count; i++)
        port_save(&c->ports[i], out);
    return 0;
}

static int console_load(struct virtio_device *dev, const struct state_section *s, struct error *err)
{
    struct virtio_console *c = console_of(dev);
    uint64_t columns;
    uint64_t rows;
    int rc = state_get_u64(s, "columns", &columns, err);

    if (!rc)
        rc = state_get_u64(s, "rows", &rows, err);
    if (rc)
        return rc;
    c->columns = (uint16_t)columns;
    c->rows = (uint16_t)rows;
    for (unsigned i = 0; i < c->port_count && !rc; i++)
        rc = port_load(&c->ports[i], s, err);
    return rc;
}

static void console_free(struct virtio_device *dev)
{
    struct virtio_console *c = console_of(dev);

    for (unsigned i = 0; i < c->port_count; i++) {
        if (c->ports[i].present)
            port_done(&c->ports[i]);
    }
    virtio_done(dev);
    cond_done(&c->drained);
    free(c);
}

static const struct virtio_ops console_ops = {
    .name = "console",
    .device_id = DEVICE_ID,
    .features_ok = console_features_ok,
    .ready = console_ready,
    .reset = console_reset,
    .kick = console_kick,
    .config_read = console_config_read,
    .held = console_held,
    .save = console_save,
    .load = console_load,
    .free = console_free,
};

static int check_config(const struct virtio_console_config *config, struct error *err)
{
    if (!config->console && !config->port_count)
        return error_set(err, EINVAL, "a console device needs a console or a port");
    if (config->port_count > VIRTIO_CONSOLE_MAX_PORTS - 1)
        return error_set(err, EINVAL, "more than %u console ports", VIRTIO_CONSOLE_MAX_PORTS - 1);
    for (size_t i = 0; i < config->port_count; i++) {
        if (strlen(config->ports[i].name) > VIRTIO_CONSOLE_NAME_MAX)
            return error_set(err, EINVAL, "console port name '%.80s' is longer than %u bytes",
                             config->ports[i].name, VIRTIO_CONSOLE_NAME_MAX);
    }
    return 0;
}

int virtio_console_new(struct mem *mem, struct loop *loop,
                       const struct virtio_console_config *config, struct virtio_device **ret,
                       struct error *err)
{
    int rc = check_config(config, err);

    if (rc)
        return rc;
    struct virtio_console *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->multiport = config->port_count;
    c->port_count = (unsigned)config->port_count + 1;
    virtio_init(&c->dev, &console_ops, mem, loop,
                (config->console ? BIT(CONSOLE_F_SIZE) : 0) |
                    (c->multiport ? BIT(CONSOLE_F_MULTIPORT) : 0),
                c->multiport ? 2 * c->port_count + 2 : 2, QUEUE_SIZE, CONFIG_SIZE);
    cond_init(&c->drained);
    if (config->console) {
        port_init(&c->ports[0], &c->dev, 0, config->console_in, config->console_out);
        c->ports[0].console = true;
    }
    for (unsigned i = 1; i < c->port_count; i++) {
        const struct virtio_console_port *from = &config->ports[i - 1];

        port_init(&c->ports[i], &c->dev, i, from->in_fd, from->out_fd);
        memcpy(c->ports[i].name, from->name, strlen(from->name)); /* check_config() measured it */
    }
    *ret = &c->dev;
    return 0;
}

size_t virtio_console_input(struct virtio_device *dev, const void *data, size_t size)
{
    struct console_port *p = &console_of(dev)->ports[0];
    size_t done = 0;
    size_t room;
    uint8_t *to;

    if (!p->present)
        return 0;
    mutex_lock(&dev->lock);
    while (done < size && (room = ring_room(&p->in_ring, &to)) > 0) {
        size_t n = MIN(room, size - done);

        memcpy(to, (const uint8_t *)data + done, n);
        ring_grow(&p->in_ring, n);
        done += n;
    }
    mutex_unlock(&dev->lock);
    if (done)
        virtio_kick_later(dev, port_to_guest(0));
    return done;
}

void virtio_console_resize(struct virtio_device *dev, uint16_t columns, uint16_t rows)
{
    struct virtio_console *c = console_of(dev);

    mutex_lock(&dev->lock);
    c->columns = columns;
    c->rows = rows;
    if (!virtio_has(dev, CONSOLE_F_MULTIPORT))
        virtio_config_changed(dev);
    else if (c->ports[0].guest_open)
        c->ports[0].due |= SEND_RESIZE;
    console_send_control(dev);
    mutex_unlock(&dev->lock);
}

static bool all_drained(const struct virtio_console *c)
{
    for (unsigned i = 0; i < c->port_count; i++) {
        if (!port_is_drained(&c->ports[i]))
            return false;
    }
    return true;
}

bool virtio_console_drain(struct virtio_device *dev, int64_t deadline_ns)
{
    struct virtio_console *c = console_of(dev);

    loop_sync(dev->loop); /* kicks under way */
    mutex_lock(&dev->lock);
    while (!all_drained(c) && cond_wait_until(&c->drained, &dev->lock, deadline_ns))
        continue;
    bool drained = all_drained(c);
    mutex_unlock(&dev->lock);
    return drained;
}
