/* What console.c (the device, control messages) and console_port.c (bytes) share. */
#ifndef DEVICE_VIRTIO_CONSOLE_INTERNAL_H
#define DEVICE_VIRTIO_CONSOLE_INTERNAL_H

#include "device/virtio/console.h"
#include "device/virtio/stream.h"

#define IN_BYTES  8192u
#define OUT_BYTES 65536u

/** A byte ring; head < size of buf. */
struct ring {
    uint8_t *buf; /* [init] */
    size_t size;  /* [init] */
    size_t head, count;
};

/** The contiguous bytes at the front, and the contiguous room at the back. */
size_t ring_front(const struct ring *r, uint8_t **ret);
size_t ring_room(const struct ring *r, uint8_t **ret);
void ring_drop(struct ring *r, size_t n);
void ring_grow(struct ring *r, size_t n);

/** Control messages to the guest that are due, §5.3.6.2; in the order they are sent. */
enum {
    SEND_ADD = 1 << 0,
    SEND_CONSOLE = 1 << 1,
    SEND_NAME = 1 << 2,
    SEND_RESIZE = 1 << 3,
    SEND_OPEN = 1 << 4,
};

struct console_port {
    struct virtio_device *dev; /* [init] */
    unsigned id;               /* [init] */
    bool present;              /* [init] port 0 is not, in a device without a console */
    bool console;              /* [init] */
    char name[VIRTIO_CONSOLE_NAME_MAX + 1]; /* [init] */
    /* All below: [device lock] */
    unsigned due;    /* SEND_* */
    bool guest_open; /* somebody in the guest reads */
    bool host_open;  /* as the guest was told or is about to be */
    struct stream in, out;
    bool in_end; /* the host's side has ended */
    struct ring in_ring, out_ring;
    uint8_t in_bytes[IN_BYTES], out_bytes[OUT_BYTES];
    bool held; /* chain was popped but does not fit into out_ring */
    size_t held_done;
    size_t resume_done; /* bytes of the next chain that had been taken before the state was saved */
    struct vq_chain chain;
};

struct virtio_console {
    struct virtio_device dev; /* must be first */
    bool multiport;           /* [init] */
    unsigned port_count;      /* [init] queues exist for ports 0..port_count-1 */
    uint16_t columns, rows;   /* [device lock] */
    struct cond drained;      /* some out_ring has become empty */
    struct console_port ports[VIRTIO_CONSOLE_MAX_PORTS];
};

/** Feature bits, §5.3.3. */
enum { CONSOLE_F_SIZE = 0, CONSOLE_F_MULTIPORT = 1 };

/** Queue numbers, §5.3.2. */
enum { CONTROL_TO_GUEST = 2, CONTROL_FROM_GUEST = 3 };
static inline unsigned port_to_guest(unsigned id)
{
    return id ? 2 * id + 2 : 0;
}
static inline unsigned port_from_guest(unsigned id)
{
    return port_to_guest(id) + 1;
}

void port_init(struct console_port *p, struct virtio_device *dev, unsigned id, int in_fd,
               int out_fd);
/** Let go of the host's descriptors. No lock held. */
void port_done(struct console_port *p);
/** Within the device's section. */
void port_save(const struct console_port *p, struct state_out *out);
must_check int port_load(struct console_port *p, const struct state_section *s, struct error *err);
/** The driver is gone. */
void port_reset(struct console_port *p);

/** Move what can be moved, of port @p of @dev. On the loop. */
void port_pump_in(struct virtio_device *dev, struct console_port *p) REQUIRES(dev->lock);
void port_pump_out(struct virtio_device *dev, struct console_port *p) REQUIRES(dev->lock);
bool port_is_drained(const struct console_port *p);

/** Send the control messages that are due, as far as the guest has buffers for them. */
void console_send_control(struct virtio_device *dev) REQUIRES(dev->lock);

#endif
