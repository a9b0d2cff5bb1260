/* What blk.c, the device, and blk_io.c, its way to the disk, share. */
#ifndef DEVICE_VIRTIO_BLK_INTERNAL_H
#define DEVICE_VIRTIO_BLK_INTERNAL_H

#include "base/pool.h"
#include "base/uring.h"
#include "device/virtio/blk.h"

#define BLK_QUEUE_SIZE  256
#define BLK_SECTOR      512u
#define BLK_HEADER_SIZE 16
#define BLK_CONFIG_SIZE 60
#define BLK_PARTS       4  /* places of one request that may be far from each other */
#define BLK_WORKERS     16 /* threads for what cannot go through a ring */

/** §5.2.6: request types and status. */
enum {
    BLK_IN = 0,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_WRITE_ZEROES = 13,
};
enum { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPP = 2 };

/** Ranges of discard and write-zeroes requests. A range of zeroes may have to be written out, and a
 * reset waits for it: not too large. */
#define BLK_RANGE_SIZE          16
#define BLK_RANGES_MAX          16
#define BLK_DISCARD_SECTORS_MAX (1u << 22)
#define BLK_ZEROES_SECTORS_MAX  (1u << 16)
#define BLK_RANGE_UNMAP         1u

struct blk_request;

struct virtio_blk {
    struct virtio_device dev;                   /* must be first */
    struct disk *disk;                          /* [init], changed while frozen alone */
    struct loop *loops[VIRTIO_BLK_MAX_QUEUES];  /* [init] */
    struct uring *rings[VIRTIO_BLK_MAX_QUEUES]; /* [init] NULL where there is no io_uring */
    struct pool *workers;                       /* [init] */
    char serial[VIRTIO_BLK_SERIAL_MAX];         /* [init] zero-padded */
    uint8_t config[BLK_CONFIG_SIZE];            /* [init] */
    struct blk_request *unused;                 /* [device lock] to be taken again */
    unsigned busy;                              /* [device lock] requests at the disk */
    struct blk_request *stalled; /* [device lock] those of them that wait for room on the host */
    unsigned stalled_count;      /* [device lock] */
    bool is_full;                /* [device lock] on_full() has been called */
    void (*on_full)(void *arg, int code); /* [init] NULL: none waits */
    void *on_full_arg;                    /* [init] */
    struct cond idle;                     /* busy has become 0 */
};

/** One transfer of a ring, for a part of a request. */
struct blk_part {
    struct uring_op op; /* must be first */
    struct blk_request *r;
    int size; /* bytes wanted */
};

/** One request, while it is executed. */
struct blk_request {
    struct pool_job job;      /* with a worker */
    struct blk_request *next; /* while unused or stalled */
    struct virtio_blk *b;
    unsigned index; /* of its queue */
    uint32_t type;
    uint64_t offset;     /* bytes; valid if !bad_offset */
    bool bad_offset;     /* beyond 2^64 */
    bool write_through;  /* the driver does not flush by itself */
    bool alone;          /* nothing else of the device was under way or waiting when it was taken */
    int code;            /* errno of what has not been carried out, with BLK_FULL */
    bool failed;         /* a part of it moved less than it should have */
    unsigned ticket;     /* of disk_io_begin(), while parts are in flight */
    unsigned parts_left; /* [queue's loop] */
    unsigned data_count; /* entries of data */
    size_t data_bytes;
    uint8_t *status;
    struct blk_part parts[BLK_PARTS];
    struct iovec data[VQ_MAX_IOV];               /* without header and status */
    struct iovec slices[VQ_MAX_IOV + BLK_PARTS]; /* data by parts */
    struct vq_chain chain;
};

/* blk_io.c. Neither is called with the device's lock held. */

#define BLK_LATER (-1)
#define BLK_FULL  (-2) /* nobody has answered it: the host had no room */

/** Carry out @r, on its queue's loop: the status, or BLK_LATER: then blk_finish() is called. */
int blk_start(struct blk_request *r);

/** Carry out @r again, on a worker. */
void blk_again(struct blk_request *r);

/** Tell the kernel of what was begun for queue @index. */
void blk_submit(struct virtio_blk *b, unsigned index);

/** blk.c: answer @r with @status and forget it. Any thread, without the lock. */
void blk_finish(struct blk_request *r, uint8_t status);

/** blk.c: @r waits until there is room, if somebody is to be told; else it fails. Likewise. */
void blk_stall(struct blk_request *r, int code);

#endif
