/* Virtqueue, device side: split rings. Spec: VIRTIO 1.2 §2.7.
 *
 * Invariants:
 *  1. `enabled` means that size is a power of two <= max_size and that the three parts of the ring
 *     were in RAM (of one region each) when the driver enabled it; regions never go away.
 *  2. Ring memory is read once into locals, which are checked and then used: the driver may be
 *     writing to it all the while.
 *  3. A chain given out has only buffers that lie in RAM (or ROM, for reading).
 *
 * Threads: the device's lock is held in all calls but vq_read() and vq_write(). The other side of
 * the memory barriers is the driver, on a vCPU's thread.
 */
#include "device/virtio/vq.h"
#include "base/bits.h"
#include "device/virtio/trace_virtio.h"
#include "device/virtio/virtio.h"

#include <errno.h>
#include <string.h>

#define DESC_BYTES      16u
#define USED_ELEM_BYTES 8u
#define RING_HEAD       4u /* flags and idx, before the ring */

/** §2.7.5 */
enum {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
};

/** §2.7.6, §2.7.8 */
enum {
    AVAIL_NO_INTERRUPT = 1,
    USED_NO_NOTIFY = 1,
};

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

/** Break the device with a sentence that names the queue. */
#define vq_break(q, fmt, ...) \
    virtio_break((q)->dev, "queue %u: " fmt, (unsigned)(q)->index, ##__VA_ARGS__)

static uint64_t desc_bytes(const struct vq *q)
{
    return (uint64_t)q->size * DESC_BYTES;
}

/** Both rings end with the event index of the other side, whether or not it is negotiated. */
static uint64_t avail_bytes(const struct vq *q)
{
    return RING_HEAD + 2u * (uint64_t)q->size + 2;
}

static uint64_t used_bytes(const struct vq *q)
{
    return RING_HEAD + USED_ELEM_BYTES * (uint64_t)q->size + 2;
}

/** The rings' host addresses; NULL only if invariant 1 were broken. Alignment was checked, so the
 * 16-bit loads and stores below are single accesses. */
static void *avail_ptr(const struct vq *q)
{
    return mem_ptr(q->dev->mem, q->avail, avail_bytes(q), false);
}

static void *used_ptr(const struct vq *q)
{
    return mem_ptr(q->dev->mem, q->used, used_bytes(q), true);
}

/** Acquire: what follows in the program is read after this. For avail.idx: entries and descriptors
 * are read after the index that covers them; pairs with the driver's barrier between filling the
 * ring and storing idx (§2.7.13.3.1). The other fields do not need it, and it costs nothing. */
static uint16_t ring_load(const void *ring, uint64_t offset)
{
    const void *p = (const char *)ring + offset;

    return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

/** Release: what precedes in the program is visible before this. For used.idx: data and entry
 * before the index; pairs with the driver's barrier after reading idx (§2.7.14). */
static void ring_store(const struct vq *q, void *used, uint64_t offset, uint16_t value)
{
    void *p = (char *)used + offset;

    __atomic_store_n((uint16_t *)p, htole16(value), __ATOMIC_RELEASE);
    mem_written(q->dev->mem, GPA(q->used.v + offset), 2);
}

bool vq_check(struct vq *q) REQUIRES(q->dev->lock)
{
    struct mem *mem = q->dev->mem;

    if (!is_pow2(q->size) || q->size > q->max_size) {
        vq_break(q, "size %u is not a power of two up to %u", q->size, q->max_size);
    } else if (q->desc.v % 16 || q->avail.v % 2 || q->used.v % 4) {
        vq_break(q, "a ring is not aligned as §2.7 says");
    } else if (!mem_ptr(mem, q->desc, desc_bytes(q), false) || !avail_ptr(q) || !used_ptr(q)) {
        vq_break(q, "a ring (0x%llx, 0x%llx, 0x%llx) is not in RAM", (unsigned long long)q->desc.v,
                 (unsigned long long)q->avail.v, (unsigned long long)q->used.v);
    } else {
        return true;
    }
    return false;
}

void vq_enable(struct vq *q) REQUIRES(q->dev->lock)
{
    if (!vq_check(q))
        return;
    q->next_avail = q->next_used = q->signalled_used = 0;
    q->signalled_valid = false;
    q->enabled = true;
}

void vq_reset(struct vq *q)
{
    q->size = q->max_size;
    q->enabled = false;
    q->desc = q->avail = q->used = GPA(0);
    q->next_avail = q->next_used = q->signalled_used = 0;
    q->signalled_valid = false;
    q->msix_vector = VQ_NO_VECTOR;
}

/** How many entries are available; -EPROTO if the driver's index has run further ahead than the
 * ring is long. */
static int available(struct vq *q) REQUIRES(q->dev->lock)
{
    const void *avail = avail_ptr(q);

    if (!avail)
        return vq_break(q, "its available ring is not in RAM");
    uint16_t count = (uint16_t)(ring_load(avail, 2) - q->next_avail);
    if (count > q->size)
        return vq_break(q, "available index jumps %u ahead of %u", count, q->next_avail);
    return count;
}

bool vq_has_work(struct vq *q)
{
    if (!q->enabled || !virtio_is_live(q->dev))
        return false;
    const void *avail = avail_ptr(q);
    return avail && ring_load(avail, 2) != q->next_avail;
}

/** Entry @i of the descriptor table @table, copied. */
static struct desc desc_load(const uint8_t *table, uint32_t i)
{
    uint8_t raw[DESC_BYTES];

    memcpy(raw, table + (size_t)i * DESC_BYTES, sizeof(raw));
    return (struct desc){
        .addr = load_le64(raw),
        .len = load_le32(raw + 8),
        .flags = load_le16(raw + 12),
        .next = load_le16(raw + 14),
    };
}

static int add_buffer(struct vq *q, struct vq_chain *c, const struct desc *d) REQUIRES(q->dev->lock)
{
    bool in = d->flags & DESC_WRITE;
    unsigned n = c->out_count + c->in_count;

    if (n == VQ_MAX_IOV)
        return vq_break(q, "chain %u has more than %u buffers", c->head, VQ_MAX_IOV);
    if (!d->len)
        return vq_break(q, "chain %u has a buffer of no size", c->head);
    if (!in && c->in_count)
        return vq_break(q, "chain %u has a readable buffer behind a writable one", c->head);
    void *p = mem_ptr(q->dev->mem, GPA(d->addr), d->len, in);
    if (!p)
        return vq_break(q, "chain %u has a buffer of %u bytes at 0x%llx, which is not %s", c->head,
                        d->len, (unsigned long long)d->addr, in ? "RAM" : "memory");
    c->iov[n] = (struct iovec){.iov_base = p, .iov_len = d->len};
    c->gpa[n] = GPA(d->addr);
    *(in ? &c->in_count : &c->out_count) += 1;
    *(in ? &c->in_bytes : &c->out_bytes) += d->len;
    return 0;
}

/** The table that an indirect descriptor refers to (§2.7.5.3): its entries, or 0 with the device
 * broken. */
static uint32_t indirect_table(struct vq *q, const struct desc *d, const uint8_t **ret_table)
    REQUIRES(q->dev->lock)
{
    if (!virtio_has(q->dev, VIRTIO_F_INDIRECT_DESC))
        vq_break(q, "indirect descriptors were not negotiated");
    else if (d->flags & DESC_NEXT)
        vq_break(q, "an indirect descriptor has a next one");
    else if (!d->len || d->len % DESC_BYTES)
        vq_break(q, "an indirect table has %u bytes", d->len);
    else if (!(*ret_table = mem_ptr(q->dev->mem, GPA(d->addr), d->len, false)))
        vq_break(q, "an indirect table at 0x%llx is not in memory", (unsigned long long)d->addr);
    else
        return d->len / DESC_BYTES;
    return 0;
}

/** Walk the chain that begins with entry @c->head of the queue's table. */
static int walk(struct vq *q, struct vq_chain *c) REQUIRES(q->dev->lock)
{
    const uint8_t *table = mem_ptr(q->dev->mem, q->desc, desc_bytes(q), false);
    uint32_t entries = q->size;
    uint32_t i = c->head;
    bool indirect = false;

    if (!table)
        return vq_break(q, "its descriptor table is not in RAM");
    /* A chain longer than its table has a loop. Each turn adds a buffer or enters the one indirect
     * table, so VQ_MAX_IOV bounds the loop as well. */
    for (uint32_t steps = 0;; steps++) {
        if (i >= entries || steps >= entries)
            return vq_break(q, "chain %u %s", c->head, i >= entries ? "leaves its table" : "loops");
        struct desc d = desc_load(table, i);
        if (d.flags & DESC_INDIRECT) {
            if (indirect)
                return vq_break(q, "chain %u has nested indirect descriptors", c->head);
            entries = indirect_table(q, &d, &table);
            if (!entries)
                return -EPROTO;
            indirect = true;
            i = 0;
            steps = UINT32_MAX; /* the next turn is number 0 in the new table */
            continue;
        }
        int rc = add_buffer(q, c, &d);
        if (rc || !(d.flags & DESC_NEXT))
            return rc;
        i = d.next;
    }
}

int vq_pop(struct vq *q, struct vq_chain *ret) REQUIRES(q->dev->lock)
{
    if (!q->enabled || !virtio_is_live(q->dev))
        return 0;
    int count = available(q);
    if (count <= 0)
        return count;
    const void *avail = avail_ptr(q);
    uint16_t head = ring_load(avail, RING_HEAD + 2u * (q->next_avail & (q->size - 1u)));
    if (head >= q->size)
        return vq_break(q, "available head %u is not below the queue size %u", head, q->size);
    ret->head = head;
    ret->out_count = ret->in_count = 0;
    ret->out_bytes = ret->in_bytes = 0;
    int rc = walk(q, ret);
    if (rc)
        return rc;
    q->next_avail++;
    trace_vq_pop(q->dev->ops->name, q->index, head, ret->out_bytes, ret->in_bytes);
    return 1;
}

void vq_set_notify(struct vq *q, bool wanted)
{
    void *used = q->enabled ? used_ptr(q) : NULL;

    if (!used)
        return;
    if (!virtio_has(q->dev, VIRTIO_F_EVENT_IDX))
        ring_store(q, used, 0, wanted ? 0 : USED_NO_NOTIFY);
    else if (wanted) /* else the old index stays, which the driver's has passed */
        ring_store(q, used, RING_HEAD + USED_ELEM_BYTES * (uint64_t)q->size, q->next_avail);
    /* Full fence: the wish is visible before the available index is read again. Pairs with the
     * driver's between storing idx and reading the wish (§2.7.13.4.1), so one of us sees the
     * other's store. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void mark_written(struct vq *q, const struct vq_chain *c, size_t written)
{
    for (unsigned i = c->out_count; written && i < c->out_count + c->in_count; i++) {
        size_t n = MIN(written, c->iov[i].iov_len);

        mem_written(q->dev->mem, c->gpa[i], n);
        written -= n;
    }
}

void vq_push(struct vq *q, const struct vq_chain *chain, size_t written)
{
    if (!q->enabled || q->dev->broken)
        return;
    uint8_t *used = used_ptr(q);
    if (!used)
        return;
    trace_vq_push(q->dev->ops->name, q->index, chain->head, written);
    mark_written(q, chain, written);
    uint64_t at = RING_HEAD + USED_ELEM_BYTES * (uint64_t)(q->next_used & (q->size - 1u));
    store_le32(used + at, chain->head);
    store_le32(used + at + 4, (uint32_t)MIN(written, (size_t)UINT32_MAX));
    mem_written(q->dev->mem, GPA(q->used.v + at), USED_ELEM_BYTES);
    q->next_used++;
    ring_store(q, used, 2, q->next_used);
}

bool vq_wants_interrupt(struct vq *q)
{
    const void *avail = q->enabled ? avail_ptr(q) : NULL;

    if (!avail)
        return false;
    /* Full fence: the used index is visible before the driver's wish is read. Pairs with the
     * driver's between storing its wish and reading the used index (§2.7.7). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!virtio_has(q->dev, VIRTIO_F_EVENT_IDX))
        return !(ring_load(avail, 0) & AVAIL_NO_INTERRUPT);
    uint16_t event = ring_load(avail, RING_HEAD + 2u * (uint64_t)q->size);
    uint16_t old = q->signalled_used;
    bool first = !q->signalled_valid;
    q->signalled_used = q->next_used;
    q->signalled_valid = true;
    /* Was the index `event` passed by one of the steps old+1..next_used? */
    return first || (uint16_t)(q->next_used - event - 1) < (uint16_t)(q->next_used - old);
}

/** Copy between @buf and the part of @iov that begins at @offset. */
static size_t copy(const struct iovec *iov, unsigned count, size_t offset, void *buf, size_t size,
                   bool out)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t n = MIN(size - done, iov[i].iov_len - offset);
        char *p = (char *)iov[i].iov_base + offset;
        if (out)
            memcpy((char *)buf + done, p, n);
        else
            memcpy(p, (const char *)buf + done, n);
        done += n;
        offset = 0;
    }
    return done;
}

size_t vq_read(const struct vq_chain *chain, size_t offset, void *buf, size_t size)
{
    return copy(chain->iov, chain->out_count, offset, buf, size, true);
}

size_t vq_write(const struct vq_chain *chain, size_t offset, const void *buf, size_t size)
{
    return copy(chain->iov + chain->out_count, chain->in_count, offset, (void *)buf, size, false);
}
