/* A host descriptor of any kind as a non-blocking byte stream, without changing it for the others
 * who share it (a terminal's O_NONBLOCK would be the calling shell's as well). */
#ifndef DEVICE_VIRTIO_STREAM_H
#define DEVICE_VIRTIO_STREAM_H

#include "base/loop.h"

#include <sys/uio.h>

struct stream {
    int fd;     /* -1 = none */
    bool owned; /* fd is a second opening of what was given */
    bool socket;
    bool timid;        /* may block: poll first, and write little at a time */
    bool always_ready; /* a file: cannot be watched and need not be */
    bool watching;
    uint32_t events; /* what to watch for */
    struct loop *loop;
    struct loop_fd watch;
};

/** Use @fd (borrowed; -1 = a stream that is at its end) for reading or, with @write, writing. @fn
 * is called on @loop when it is ready, while watched. */
void stream_open(struct stream *s, struct loop *loop, int fd, bool write,
                 void (*fn)(struct loop_fd *w, uint32_t events), void *arg);
/** On the loop's thread or followed by loop_sync(). */
void stream_close(struct stream *s);

/** Watch or stop watching; on a stream that is always ready neither does anything. */
void stream_watch(struct stream *s, bool on);

/** Bytes moved; 0 when reading: the end; -EAGAIN: not now; other -errno: never again. */
ssize_t stream_read(struct stream *s, void *buf, size_t size);
ssize_t stream_write(struct stream *s, const void *buf, size_t size);

#endif
