/* The format, for both its sides. docs/formats/snapshot.md. All numbers are little-endian.
 *
 *     header | state | region... | chunk... | end chunk
 */
#ifndef SNAPSHOT_SNAPSHOT_INTERNAL_H
#define SNAPSHOT_SNAPSHOT_INTERNAL_H

#include "snapshot/snapshot.h"

#include <sys/types.h>

struct vm;

/** See capture.c. */
struct capture {
    /* The caller's. */
    struct vm *vm;
    int (*at_rest)(void *arg, struct error *err); /* NULL = nothing to do */
    void (*child_main)(struct capture *c);        /* in the child; should not return */
    bool adopt;                                   /* where a machine is to go on: vm_fork() */
    void *arg;

    /* Filled. */
    uint8_t *state; /* for the child alone */
    size_t state_size;
    pid_t parent, child;
    int64_t pause_ns;
};

/** The machine then runs or stands as before. 0 with c->child, which the caller waits for. */
must_check int capture(struct capture *c, struct error *err);

#define SNAPSHOT_MAGIC "PSDSNAP1"
#define SNAPSHOT_HEADER                                                                           \
    32 /* magic, 4 version, 4 regions, 8 bytes of state, 4 CRC-32 of the regions, 4 of all before \
        */
#define SNAPSHOT_VERSION 1
#define SNAPSHOT_REGION  16 /* 8 base, 8 size */

/** Memory travels in chunks of this much of the guest, of which only the pages that are not all
 * zeroes are stored. */
#define SNAPSHOT_CHUNK_PAGES 256u
#define SNAPSHOT_CHUNK_BYTES (SNAPSHOT_CHUNK_PAGES * 4096u)
#define SNAPSHOT_CHUNK_HEAD \
    (16 + SNAPSHOT_CHUNK_PAGES / 8) /* 8 address, 4 stored bytes, 4 CRC-32 of them; bitmap */
#define SNAPSHOT_END UINT64_MAX     /* address of the chunk that ends the file */

#define SNAPSHOT_STATE_MAX   (256u << 20)
#define SNAPSHOT_REGIONS_MAX 64

#endif
