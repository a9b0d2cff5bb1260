/* virtio console (VIRTIO 1.2 §5.3): a terminal for the guest, and named byte streams between guest
 * and host.
 *
 * Without named ports the device is the plain console that every driver knows, and the window size
 * is in its configuration space. With named ports it speaks the multiport protocol. Give a machine
 * that wants both two devices: drivers disagree about the order of rows and columns in the
 * multiport protocol's resize message (§5.3.6.2 against Linux before 6.15). */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include "base/error.h"
#include "device/virtio/virtio.h"

#define VIRTIO_CONSOLE_MAX_PORTS 9  /* the console and eight named ones */
#define VIRTIO_CONSOLE_NAME_MAX  63 /* bytes of a port's name */

/** One byte stream. Descriptors are borrowed, may be of any kind, and are neither closed nor
 * switched to non-blocking for others who share them.
 *
 * Towards the guest, bytes wait until the guest has opened the port, which a console without named
 * ports shows by its first output; reading pauses while the guest has no room. At end of file, the
 * port is closed once the guest has taken everything, so that its read() returns 0; Linux then
 * blocks a write() to the same port, so use two ports where one direction ends before the other.
 * The console never closes.
 *
 * From the guest, nothing is taken from the queue while @out_fd has no room; what cannot be written
 * at all (a closed pipe) is dropped. */
struct virtio_console_port {
    const char *name; /* borrowed during virtio_console_new() */
    int in_fd;        /* host → guest; -1 = none */
    int out_fd;       /* guest → host; -1 = none: dropped */
};

struct virtio_console_config {
    bool console;   /* there is a console, as port 0 */
    int console_in; /* -1: virtio_console_input() only */
    int console_out;
    const struct virtio_console_port *ports; /* named ones */
    size_t port_count;                       /* at most VIRTIO_CONSOLE_MAX_PORTS - 1 */
};

/** On success *@ret is the caller's, for virtio_pci_new(). Errors: -ENOMEM, -EINVAL (neither
 * console nor ports, or a name too long). */
must_check int virtio_console_new(struct mem *mem, struct loop *loop,
                                  const struct virtio_console_config *config,
                                  struct virtio_device **ret, struct error *err);

/** Type @data into the console. Returns the bytes taken, 0 when the guest's buffer is full. Any
 * thread. */
size_t virtio_console_input(struct virtio_device *dev, const void *data, size_t size);

/** Tell the guest the console's window size. Any thread. */
void virtio_console_resize(struct virtio_device *dev, uint16_t columns, uint16_t rows);

/** Wait until what the guest has written so far has gone to the host's descriptors, or until
 * CLOCK_MONOTONIC @deadline_ns: for the last lines of a machine that powers off. True if all has
 * gone. Not on the device's loop, vCPUs stopped. */
bool virtio_console_drain(struct virtio_device *dev, int64_t deadline_ns);

#endif
