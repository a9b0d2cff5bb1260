/* Checking a QCOW2 image: what check.c and repair.c share.
 *
 * check.c counts the references to each cluster, walking all that the image holds, and compares
 * that with the refcounts; repair.c makes the file agree. Both work on the file itself, with
 * nothing dirty in memory. */
#ifndef DISK_QCOW2_CHECK_H
#define DISK_QCOW2_CHECK_H

#include "disk/qcow2/qcow2.h"

#define QCOW2_COUNTS 4096u /* counters of one piece */

struct qcow2_l2_ref {
    uint64_t offset;
    uint32_t weight; /* L1 tables that refer to it */
    bool is_active;  /* the active one among them */
};

struct qcow2_checker {
    struct qcow2 *q;
    struct disk_check *check;
    unsigned flags;
    uint64_t end;      /* clusters that may be referred to */
    uint64_t room;     /* clusters that `pieces` can count */
    uint32_t **pieces; /* counters, NULL = all 0 */
    struct qcow2_l2_ref *l2;
    size_t l2_count, l2_room;
    uint64_t next_host;    /* for fragmentation */
    uint64_t lost;         /* findings that no repair mends: a table beyond the end of the file */
    struct qcow2_set high; /* clusters with one reference that the file counts more of */
    bool broken_counts;    /* the refcount table or blocks make no sense: they are made anew */
    uint8_t *buf;          /* a cluster */
};

/** A finding, counted in check->errors. */
void qcow2_check_error(struct qcow2_checker *c, const char *fmt, ...) printf_like(2, 3);
uint32_t qcow2_count_of(const struct qcow2_checker *c, uint64_t cluster);
must_check int qcow2_count_add(struct qcow2_checker *c, uint64_t cluster, uint32_t n);

static inline bool qcow2_repairs(const struct qcow2_checker *c)
{
    return c->flags & DISK_REPAIR_ALL;
}

/** Does something else lie where the table does? As far as was counted; then it must not be written
 * to. */
bool qcow2_is_shared(const struct qcow2_checker *c, const struct qcow2_l2_ref *ref);

/* repair.c */

/** Compare refcounts with the counts; the file gets higher ones (@raise) or lower ones where it
 * must and may. Findings are reported when @report. */
must_check int qcow2_compare_counts(struct qcow2_checker *c, bool report, bool raise, bool lower);
/** Copied flags of the active tables. */
must_check int qcow2_check_flags(struct qcow2_checker *c);
/** A new refcount table and blocks behind the end of the file, for the counts without the old. */
must_check int qcow2_new_refcounts(struct qcow2_checker *c);

#endif
