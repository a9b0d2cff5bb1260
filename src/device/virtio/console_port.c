/* The bytes of one console port, between a pair of queues and a pair of host descriptors.
 *
 *   in stream  → in_ring  → receive queue            transmit queue → out_ring → out stream
 *
 * Invariants:
 *  1. The in stream is watched only while in_ring has room and the end was not reached; the out
 *     stream only while out_ring holds something.
 *  2. A transmit chain is given back as soon as its bytes are in out_ring: a guest that waits for
 *     that (as Linux's console does, spinning) never waits for the host's terminal, unless
 *     out_ring is full.
 *
 * Threads: the device's lock.
 */
#include "base/log.h"
#include "device/virtio/console_internal.h"
#include "state/state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KICK_SHARE 256 /* chains per turn; then other devices of the loop get theirs */

size_t ring_front(const struct ring *r, uint8_t **ret)
{
    *ret = r->buf + r->head;
    return MIN(r->count, r->size - r->head);
}

size_t ring_room(const struct ring *r, uint8_t **ret)
{
    size_t tail = (r->head + r->count) % r->size;

    *ret = r->buf + tail;
    return MIN(r->size - r->count, r->size - tail);
}

void ring_drop(struct ring *r, size_t n)
{
    r->head = (r->head + n) % r->size;
    r->count -= n;
}

void ring_grow(struct ring *r, size_t n)
{
    r->count += n;
}

/** May bytes go to the guest? A port that nobody has opened there would drop them. */
static bool guest_listens(const struct console_port *p)
{
    return p->guest_open;
}

/** Without the multiport protocol nobody says that the port is open, and Linux throws away what
 * comes before it has made its console of it. What it writes shows that it has. */
static void guest_spoke(struct virtio_device *dev, struct console_port *p)
{
    if (p->guest_open || virtio_has(dev, CONSOLE_F_MULTIPORT))
        return;
    p->guest_open = true;
    virtio_kick_later(dev, port_to_guest(p->id));
}

/** Read what fits from the host. True if there was something. */
static bool fill(struct console_port *p)
{
    bool any = false;
    uint8_t *to;
    size_t room;

    while (!p->in_end && (room = ring_room(&p->in_ring, &to)) > 0) {
        ssize_t n = stream_read(&p->in, to, room);

        if (n == -EAGAIN)
            break;
        any = true;
        if (n <= 0)
            p->in_end = true;
        else
            ring_grow(&p->in_ring, (size_t)n);
    }
    return any;
}

/** Hand bytes to the guest until one side has no more. */
static void deliver(struct virtio_device *dev, struct console_port *p) REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[port_to_guest(p->id)];
    struct vq_chain c;
    bool any = false;

    while (p->in_ring.count && vq_pop(q, &c) > 0) {
        size_t done = 0;
        uint8_t *from;

        if (!c.in_bytes) {
            virtio_break(dev, "a receive buffer of port %u has no room", p->id);
            return;
        }
        while (done < c.in_bytes && p->in_ring.count) {
            size_t front = ring_front(&p->in_ring, &from);
            size_t n = vq_write(&c, done, from, front);

            ring_drop(&p->in_ring, n);
            done += n;
        }
        vq_push(q, &c, done);
        any = true;
    }
    if (any)
        virtio_notify(dev, q->index);
}

/** The host's side has ended and the guest has taken everything: tell it. */
static void close_host_side(struct virtio_device *dev, struct console_port *p) REQUIRES(dev->lock)
{
    if (p->console || !p->host_open || p->in.fd < 0)
        return;
    p->host_open = false;
    p->due |= SEND_OPEN;
    console_send_control(dev);
}

void port_pump_in(struct virtio_device *dev, struct console_port *p)
{
    unsigned index = port_to_guest(p->id);
    struct vq *q = &dev->queues[index];
    bool more;

    vq_set_notify(q, false);
    for (unsigned i = 0;; i++) {
        more = fill(p);
        size_t before = p->in_ring.count;
        if (guest_listens(p))
            deliver(dev, p);
        /* A file is never watched, so it is read on here for as long as the guest takes it. */
        more = more && p->in.always_ready && p->in_ring.count < before;
        if (!more || i == KICK_SHARE)
            break;
    }
    if (p->in_ring.count)
        vq_set_notify(q, true);
    if (more || (p->in_ring.count && guest_listens(p) && vq_has_work(q)))
        virtio_kick_later(dev, index);
    if (p->in_end && !p->in_ring.count)
        close_host_side(dev, p);
    stream_watch(&p->in, !p->in_end && p->in_ring.count < p->in_ring.size);
}

/** Write as much of out_ring as the host takes. */
static void flush(struct console_port *p)
{
    uint8_t *from;
    size_t size;

    while ((size = ring_front(&p->out_ring, &from)) > 0) {
        ssize_t n = stream_write(&p->out, from, size);

        if (n == -EAGAIN)
            break;
        if (n < 0) { /* nobody will ever read it */
            ring_drop(&p->out_ring, p->out_ring.count);
            stream_close(&p->out);
            break;
        }
        ring_drop(&p->out_ring, (size_t)n);
    }
    stream_watch(&p->out, p->out_ring.count);
}

/** Move the held chain's bytes; false when out_ring is full before its end. */
static bool take_held(struct console_port *p)
{
    uint8_t *to;
    size_t room;

    while (p->held_done < p->chain.out_bytes) {
        if (!(room = ring_room(&p->out_ring, &to))) {
            flush(p);
            if (!(room = ring_room(&p->out_ring, &to)))
                return false;
        }
        size_t n = vq_read(&p->chain, p->held_done, to, room);
        ring_grow(&p->out_ring, n);
        p->held_done += n;
    }
    return true;
}

void port_pump_out(struct virtio_device *dev, struct console_port *p)
{
    unsigned index = port_from_guest(p->id);
    struct vq *q = &dev->queues[index];

    flush(p);
    vq_set_notify(q, false);
    for (unsigned i = 0;; i++) {
        if (i == KICK_SHARE) {
            virtio_kick_later(dev, index);
            break;
        }
        if (!p->held) {
            if (vq_pop(q, &p->chain) <= 0) {
                vq_set_notify(q, true);
                if (!vq_has_work(q))
                    break;
                continue;
            }
            p->held = true;
            p->held_done = MIN(p->resume_done, p->chain.out_bytes);
            p->resume_done = 0;
            guest_spoke(dev, p);
        }
        if (!take_held(p))
            break; /* the out stream is watched, and calls again */
        p->held = false;
        vq_push(q, &p->chain, 0);
        virtio_notify(dev, index);
    }
    flush(p);
    if (port_is_drained(p))
        cond_broadcast(&((struct virtio_console *)dev)->drained);
}

bool port_is_drained(const struct console_port *p)
{
    if (!p->present)
        return true;
    return !p->out_ring.count && !p->held && !vq_has_work(&p->dev->queues[port_from_guest(p->id)]);
}

static void in_ready(struct loop_fd *w, uint32_t events)
{
    struct console_port *p = w->arg;
    struct virtio_device *dev = p->dev;

    mutex_lock(&dev->lock);
    if (p->in.watching)
        port_pump_in(dev, p);
    mutex_unlock(&dev->lock);
}

static void out_ready(struct loop_fd *w, uint32_t events)
{
    struct console_port *p = w->arg;
    struct virtio_device *dev = p->dev;

    mutex_lock(&dev->lock);
    if (p->out.watching)
        port_pump_out(dev, p);
    mutex_unlock(&dev->lock);
}

void port_init(struct console_port *p, struct virtio_device *dev, unsigned id, int in_fd,
               int out_fd)
{
    p->dev = dev;
    p->id = id;
    p->present = true;
    p->in_ring = (struct ring){.buf = p->in_bytes, .size = IN_BYTES};
    p->out_ring = (struct ring){.buf = p->out_bytes, .size = OUT_BYTES};
    p->in_end = in_fd < 0;
    p->host_open = true;
    stream_open(&p->in, dev->loop, in_fd, false, in_ready, p);
    stream_open(&p->out, dev->loop, out_fd, true, out_ready, p);
}

void port_done(struct console_port *p)
{
    mutex_lock(&p->dev->lock);
    stream_watch(&p->in, false);
    stream_watch(&p->out, false);
    mutex_unlock(&p->dev->lock);
    loop_sync(p->dev->loop);
    stream_close(&p->in);
    stream_close(&p->out);
}

void port_reset(struct console_port *p)
{
    p->due = 0;
    p->guest_open = false;
    p->held = false; /* the rest of that chain is lost with the queue */
    p->resume_done = 0;
    p->host_open = p->console || !p->in_end || p->in_ring.count || p->in.fd < 0;
}

/** The names of a port's fields begin with its number. */
static const char *field(const struct console_port *p, const char *name, char *buf, size_t size)
{
    (void)snprintf(buf, size, "port%u-%s", p->id, name); /* short by construction */
    return buf;
}

/** The bytes in @r, in order. */
static void put_ring(struct state_out *out, const char *name, const struct ring *r)
{
    uint8_t bytes[OUT_BYTES];
    size_t first = MIN(r->count, r->size - r->head);

    memcpy(bytes, r->buf + r->head, first);
    memcpy(bytes + first, r->buf, r->count - first);
    state_put_bytes(out, name, bytes, r->count);
}

static int get_ring(const struct state_section *s, const char *name, struct ring *r,
                    struct error *err)
{
    const uint8_t *bytes;
    size_t size;
    int rc = state_get_bytes(s, name, r->size, &bytes, &size, err);

    if (rc)
        return rc;
    memcpy(r->buf, bytes, size);
    r->head = 0;
    r->count = size;
    return 0;
}

void port_save(const struct console_port *p, struct state_out *out)
{
    char name[32];

    state_put_u64(out, field(p, "due", name, sizeof(name)), p->due);
    state_put_u64(out, field(p, "open", name, sizeof(name)), p->guest_open);
    state_put_u64(out, field(p, "done", name, sizeof(name)), p->held ? p->held_done : 0);
    if (!p->present)
        return;
    put_ring(out, field(p, "in", name, sizeof(name)), &p->in_ring);
    put_ring(out, field(p, "out", name, sizeof(name)), &p->out_ring);
}

/** What had not reached the old host yet goes to the new one. The guest is told anew whether the
 * host's side is open. */
int port_load(struct console_port *p, const struct state_section *s, struct error *err)
{
    uint64_t due = 0;
    uint64_t guest_open = 0;
    uint64_t done = 0;
    char name[32];
    int rc = state_get_u64(s, field(p, "due", name, sizeof(name)), &due, err);

    if (!rc)
        rc = state_get_u64(s, field(p, "open", name, sizeof(name)), &guest_open, err);
    if (!rc)
        rc = state_get_u64(s, field(p, "done", name, sizeof(name)), &done, err);
    if (!rc && p->present)
        rc = get_ring(s, field(p, "in", name, sizeof(name)), &p->in_ring, err);
    if (!rc && p->present)
        rc = get_ring(s, field(p, "out", name, sizeof(name)), &p->out_ring, err);
    p->due = due & (SEND_ADD | SEND_CONSOLE | SEND_NAME | SEND_RESIZE | SEND_OPEN);
    if (p->present && !p->console && guest_open)
        p->due |= SEND_OPEN;
    p->guest_open = guest_open;
    p->resume_done = done;
    return rc;
}
