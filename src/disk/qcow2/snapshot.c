/* Internal snapshots of a QCOW2 image: read, and kept.
 *
 * Threads: the callers'. Spec: qcow2.txt, "Snapshots". */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

#define HEAD_BYTES   40u
#define MAX_EXTRA    1024u
#define MAX_TABLE    (64u << 20)
#define MAX_L1_TOTAL (64u << 20) /* of all snapshots together */
#define VARIABLE_MAX (MAX_EXTRA + 2 * 65536u)

static char *text_at(const uint8_t *p, size_t n)
{
    char *s = malloc(n + 1);

    if (s) {
        memcpy(s, p, n);
        s[n] = 0;
    }
    return s;
}

static void snapshot_done(struct qcow2_snapshot *s)
{
    free(s->id);
    free(s->name);
    *s = (struct qcow2_snapshot){0};
}

/** The entry at @offset. *@ret_bytes: its length. */
static int read_snapshot(struct qcow2 *q, uint64_t offset, uint8_t *buf, struct qcow2_snapshot *s,
                         uint64_t *ret_bytes)
{
    uint8_t head[HEAD_BYTES];
    int rc = file_pread(q->file, head, sizeof(head), offset);

    if (rc)
        return rc;
    uint32_t id_bytes = load_be16(head + 12);
    uint32_t name_bytes = load_be16(head + 14);
    uint32_t extra = load_be32(head + 36);
    if (extra > MAX_EXTRA)
        return -EINVAL;
    rc = file_pread(q->file, buf, extra + id_bytes + name_bytes, offset + HEAD_BYTES);
    if (rc)
        return rc;
    *s = (struct qcow2_snapshot){
        .l1_offset = load_be64(head),
        .l1_entries = load_be32(head + 8),
        .date_s = load_be32(head + 16),
        .clock_ns = (int64_t)load_be64(head + 24),
        .state_bytes = extra >= 8 ? load_be64(buf) : load_be32(head + 32),
        .size_bytes = extra >= 16 ? load_be64(buf + 8) : q->h.size_bytes,
        .id = text_at(buf + extra, id_bytes),
        .name = text_at(buf + extra + id_bytes, name_bytes),
    };
    *ret_bytes = align_up(HEAD_BYTES + extra + id_bytes + name_bytes, 8);
    if (s->id && s->name)
        return 0;
    snapshot_done(s);
    return -ENOMEM;
}

static int check_snapshot(const struct qcow2 *q, const struct qcow2_snapshot *s, uint64_t *l1_total)
{
    uint64_t bytes = (uint64_t)s->l1_entries * 8;

    *l1_total += bytes;
    if (s->l1_entries > QCOW2_MAX_L1 / 8 || *l1_total > MAX_L1_TOTAL)
        return -EFBIG;
    if (!bytes)
        return 0;
    return s->l1_offset & (q->cluster_bytes - 1) || !s->l1_offset ||
                   s->l1_offset >> q->cluster_bits >= q->end ||
                   (s->l1_offset + bytes - 1) >> q->cluster_bits >= q->end
               ? -EINVAL
               : 0;
}

int qcow2_for_snapshots(struct qcow2 *q, int (*visit)(void *arg, const struct qcow2_snapshot *s),
                        void *arg, uint64_t *ret_bytes, struct error *err)
{
    uint64_t at = 0;
    uint64_t l1_total = 0;
    cleanup(freep) uint8_t *buf = malloc(VARIABLE_MAX);
    int rc = buf ? 0 : error_set(err, ENOMEM, "out of memory");

    for (uint32_t i = 0; i < q->h.snapshot_count && !rc; i++) {
        struct qcow2_snapshot s = {0};
        uint64_t bytes = 0;

        rc = read_snapshot(q, q->h.snapshots_offset + at, buf, &s, &bytes);
        at += bytes;
        if (!rc)
            rc = at > MAX_TABLE ? -EFBIG : check_snapshot(q, &s, &l1_total);
        if (rc)
            (void)error_set(err, -rc, "its internal snapshot %u makes no sense", i + 1);
        else
            rc = visit(arg, &s);
        snapshot_done(&s);
    }
    if (!rc && ret_bytes)
        *ret_bytes = at;
    return rc;
}
