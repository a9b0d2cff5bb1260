/* Limits of what goes to a disk: bytes and requests a second. */
#ifndef DISK_THROTTLE_H
#define DISK_THROTTLE_H

#include "disk/disk.h"

/** What a limit counts. */
enum disk_limit_kind { DISK_LIMIT_ALL, DISK_LIMIT_READ, DISK_LIMIT_WRITE, DISK_LIMIT_KINDS };

struct disk_limit {
    uint64_t rate;  /* a second; 0 = no limit */
    uint64_t burst; /* so much at once after a rest; 0 = what comes in a tenth of a second */
};

/** Zeroed: no limits. */
struct disk_limits {
    struct disk_limit bytes[DISK_LIMIT_KINDS];
    struct disk_limit requests[DISK_LIMIT_KINDS];
};

/** Take one word such as "bps=10M", "iops-rd=100", "iops-burst=500": bps or iops, then -rd or -wr
 * or nothing for both together, then -burst or nothing. 1: taken; 0: it is no limit; -EINVAL: its
 * value is no size (bps) or number (iops), from 1. */
must_check int disk_limits_parse(struct disk_limits *limits, const char *word);

/** Is there any limit? */
bool disk_limits_any(const struct disk_limits *limits);

/** Put limits before @d, which is taken on success: *@ret reads and writes it, and waits where it
 * must. Zeroes and discards count as writes of no bytes. -ENOMEM. */
must_check int disk_throttle(struct disk *d, const struct disk_limits *limits, struct disk **ret,
                             struct error *err);

/** When may @cost more units come that arrive at @now_ns? Counts them. *@due_ns is the limit's
 * memory, 0 at first. Internal, for the test. */
int64_t disk_limit_admit(const struct disk_limit *l, int64_t *due_ns, int64_t now_ns,
                         uint64_t cost);

/** Is @d what disk_throttle() made? Then d->below is the disk. */
bool disk_is_throttled(const struct disk *d);

#endif
