/* Guest-physical address space.
 *
 * Invariants:
 *  1. `regions` is sorted by base, regions do not overlap, and does not change once `frozen`.
 *  2. RAM is one MAP_NORESERVE mapping per region with an inaccessible guard page on each side: an
 * engine's arithmetic slip of less than a page faults instead of touching the monitor. Threads:
 * any, after mem_freeze(). Page flags are atomic bytes.
 */
#include "mem/mem.h"
#include "base/bits.h"
#include "mem/trace_mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_SIZE (2u << 20) /* of the host's and of the guest's processors */

struct mem {
    struct mem_region *regions;        /* [init] */
    size_t count;                      /* [init] */
    bool frozen;                       /* [init] */
    const struct mem_region *main;     /* [init] once frozen: the largest RAM, tried first */
    struct mem_code_listener listener; /* [init] */
    struct mem *heritage;              /* [init] mem_adopt()'s; NULL once frozen */
};

struct mem *mem_new(void)
{
    return calloc(1, sizeof(struct mem));
}

void mem_free(struct mem *mem)
{
    if (!mem)
        return;
    for (size_t i = 0; i < mem->count; i++) {
        struct mem_region *r = &mem->regions[i];

        if (r->host) /* else a device's, or another's by now: mem_adopt() */
            (void)munmap(r->host - MEM_PAGE_SIZE,
                         r->size + 2 * MEM_PAGE_SIZE); /* ours, so it cannot fail */
        if (r->page_flags)
            (void)munmap(r->page_flags, r->size >> MEM_PAGE_BITS);
    }
    free(mem->regions);
    free(mem);
}

static int insert(struct mem *mem, const struct mem_region *region, struct error *err)
{
    uint64_t end;
    size_t at = 0;

    assert(!mem->frozen);
    if (!region->size || !checked_add(region->base.v, region->size - 1, &end))
        return error_set(err, EINVAL, "memory region '%s' has no size or wraps around",
                         region->name);
    while (at < mem->count && mem->regions[at].base.v < region->base.v)
        at++;
    if ((at > 0 && mem->regions[at - 1].base.v + mem->regions[at - 1].size - 1 >= region->base.v) ||
        (at < mem->count && mem->regions[at].base.v <= end))
        return error_set(err, EINVAL, "memory region '%s' at 0x%llx overlaps another", region->name,
                         (unsigned long long)region->base.v);
    struct mem_region *grown = reallocarray(mem->regions, mem->count + 1, sizeof(*grown));
    if (!grown)
        return error_set(err, ENOMEM, "out of memory");
    memmove(&grown[at + 1], &grown[at], (mem->count - at) * sizeof(*grown));
    grown[at] = *region;
    mem->regions = grown;
    mem->count++;
    return 0;
}

static void *map(size_t size, int prot)
{
    void *p = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void mem_adopt(struct mem *mem, struct mem *from)
{
    assert(!mem->frozen);
    mem->heritage = from;
}

/** Address space for @size bytes and two guard pages, such that the guest's huge pages lie in the
 * host's: what the guest gives back is whole ones, and a processor can map them as such. NULL:
 * none.
 */
static uint8_t *map_aligned(gpa_t base, uint64_t size)
{
    uint64_t all = size + 2 * MEM_PAGE_SIZE;
    uint64_t spare = size >= HUGE_SIZE ? HUGE_SIZE : 0;
    uint8_t *raw = all + spare > all || !spare ? map(all + spare, PROT_NONE) : NULL;

    if (!raw || !spare)
        return raw;
    uint64_t skip = (base.v - (uintptr_t)(raw + MEM_PAGE_SIZE)) % HUGE_SIZE;
    if (skip)
        (void)munmap(raw, skip); /* ours, so they cannot fail */
    if (skip < spare)
        (void)munmap(raw + skip + all, spare - skip);
    return raw + skip;
}

/** A mapping of @size accessible bytes between guard pages, new or inherited; its start, or NULL.
 */
static uint8_t *map_guarded(struct mem *mem, gpa_t base, uint64_t size)
{
    const struct mem_region *old = mem->heritage ? mem_find(mem->heritage, base) : NULL;

    if (old && old->host && old->base.v == base.v && old->size == size) {
        uint8_t *whole = old->host - MEM_PAGE_SIZE;

        mem->heritage->regions[old - mem->heritage->regions].host = NULL;
        return whole;
    }
    uint8_t *whole = map_aligned(base, size);
    if (whole && mprotect(whole + MEM_PAGE_SIZE, size, PROT_READ | PROT_WRITE)) {
        (void)munmap(whole, size + 2 * MEM_PAGE_SIZE);
        return NULL;
    }
    if (whole)
        (void)madvise(whole + MEM_PAGE_SIZE, size, MADV_HUGEPAGE); /* only a hint */
    return whole;
}

int mem_add_ram(struct mem *mem, gpa_t base, uint64_t size, unsigned flags, const char *name,
                const struct mmio_ops *rom_ops, void *rom_dev, void **ret_host, struct error *err)
{
    struct mem_region r = {
        .base = base,
        .size = size,
        .writable = !(flags & MEM_READONLY),
        .ops = rom_ops,
        .dev = rom_dev,
        .name = name,
    };
    uint64_t mapped;

    if ((base.v | size) % MEM_PAGE_SIZE || !checked_add(size, 2 * MEM_PAGE_SIZE, &mapped))
        return error_set(err, EINVAL, "memory region '%s' is not a multiple of 4 KiB", name);
    uint8_t *whole = map_guarded(mem, base, size);
    r.page_flags = map(size >> MEM_PAGE_BITS, PROT_READ | PROT_WRITE);
    if (!whole || !r.page_flags) {
        int rc = error_set(err, ENOMEM, "cannot map %llu MiB of guest memory: %s",
                           (unsigned long long)(size >> 20), strerror(errno));

        if (whole)
            (void)munmap(whole, mapped);
        if (r.page_flags)
            (void)munmap(r.page_flags, size >> MEM_PAGE_BITS);
        return rc;
    }
    r.host = whole + MEM_PAGE_SIZE;
    int rc = insert(mem, &r, err);
    if (rc) {
        (void)munmap(whole, mapped);
        (void)munmap(r.page_flags, size >> MEM_PAGE_BITS);
        return rc;
    }
    if (ret_host)
        *ret_host = r.host;
    return 0;
}

int mem_add_mmio(struct mem *mem, gpa_t base, uint64_t size, const struct mmio_ops *ops, void *dev,
                 struct error *err)
{
    struct mem_region r = {.base = base, .size = size, .ops = ops, .dev = dev, .name = ops->name};

    return insert(mem, &r, err);
}

void mem_freeze(struct mem *mem)
{
    mem->frozen = true;
    mem->heritage = NULL;
    for (size_t i = 0; i < mem->count; i++) {
        const struct mem_region *r = &mem->regions[i];

        if (r->host && (!mem->main || r->size > mem->main->size))
            mem->main = r;
    }
}

void mem_set_code_listener(struct mem *mem, const struct mem_code_listener *listener)
{
    assert(!mem->frozen);
    mem->listener = *listener;
}

const struct mem_region *mem_find(const struct mem *mem, gpa_t gpa)
{
    size_t lo = 0;
    size_t hi = mem->count;

    if (likely(mem->main && gpa.v - mem->main->base.v < mem->main->size))
        return mem->main;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct mem_region *r = &mem->regions[mid];

        if (gpa.v < r->base.v)
            hi = mid;
        else if (gpa.v - r->base.v >= r->size)
            lo = mid + 1;
        else
            return r;
    }
    return NULL;
}

const struct mem_region *mem_next(const struct mem *mem, size_t *i)
{
    return *i < mem->count ? &mem->regions[(*i)++] : NULL;
}

void *mem_ptr(const struct mem *mem, gpa_t gpa, uint64_t size, bool write)
{
    const struct mem_region *r = mem_find(mem, gpa);

    if (!r || !r->host || (write && !r->writable) || size > r->size - (gpa.v - r->base.v))
        return NULL;
    return r->host + (gpa.v - r->base.v);
}

int mem_copy_in(const struct mem *mem, gpa_t gpa, void *buf, size_t size)
{
    const void *p = mem_ptr(mem, gpa, size, false);

    if (!p)
        return -EFAULT;
    memcpy(buf, p, size);
    return 0;
}

int mem_copy_out(struct mem *mem, gpa_t gpa, const void *buf, size_t size)
{
    void *p = mem_ptr(mem, gpa, size, true);

    if (!p)
        return -EFAULT;
    memcpy(p, buf, size);
    mem_written(mem, gpa, size);
    return 0;
}

void mem_written(struct mem *mem, gpa_t gpa, uint64_t size)
{
    const struct mem_region *r = size ? mem_find(mem, gpa) : NULL;

    if (!r || !r->host || !mem->listener.written)
        return;
    /* Seq-cst fence: the data is visible before the flag is read; pairs with the engine, which sets
     * the flag before it reads the code, so one of the two sees the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint64_t at = gpa.v - r->base.v;
    uint64_t end = size > r->size - at ? r->size : at + size;
    while (at < end) {
        uint64_t page_end = MIN((at | (MEM_PAGE_SIZE - 1)) + 1, end);

        if (__atomic_load_n(&r->page_flags[at >> MEM_PAGE_BITS], __ATOMIC_RELAXED) & MEM_PAGE_CODE)
            mem->listener.written(mem->listener.arg, GPA(r->base.v + at), page_end - at);
        at = page_end;
    }
}

static enum bus_result mmio_read(const struct mem_region *r, uint64_t offset, unsigned size,
                                 uint64_t *ret)
{
    const struct mmio_ops *ops = r->ops;
    unsigned max = ops->max_size ? ops->max_size : 8;
    uint64_t whole = 0;

    if (!ops->read || offset % size || size < ops->min_size || size > r->size - offset)
        return BUS_FAULT;
    if (size <= max)
        return ops->read(r->dev, offset, size, ret);
    for (unsigned done = 0; done < size; done += max) {
        uint64_t part = 0;
        enum bus_result rc = ops->read(r->dev, offset + done, max, &part);

        if (rc != BUS_OK)
            return rc;
        whole |= (part & MASK(max * 8)) << (done * 8);
    }
    *ret = whole;
    return BUS_OK;
}

static enum bus_result mmio_write(const struct mem_region *r, uint64_t offset, unsigned size,
                                  uint64_t value)
{
    const struct mmio_ops *ops = r->ops;
    unsigned max = ops && ops->max_size ? ops->max_size : 8;

    if (!ops || !ops->write || offset % size || size < ops->min_size || size > r->size - offset)
        return BUS_FAULT;
    if (size <= max)
        return ops->write(r->dev, offset, size, value & MASK(size * 8));
    for (unsigned done = 0; done < size; done += max) {
        enum bus_result rc =
            ops->write(r->dev, offset + done, max, (value >> (done * 8)) & MASK(max * 8));

        if (rc != BUS_OK)
            return rc;
    }
    return BUS_OK;
}

enum bus_result mem_read(struct mem *mem, gpa_t gpa, unsigned size, uint64_t *ret)
{
    const struct mem_region *r = mem_find(mem, gpa);

    if (!r)
        return BUS_UNHANDLED;
    uint64_t offset = gpa.v - r->base.v;
    if (!r->host) {
        enum bus_result rc = mmio_read(r, offset, size, ret);

        trace_mmio_read(r->name, gpa.v, size, rc == BUS_OK ? *ret : 0, (int)rc);
        return rc;
    }
    if (size > r->size - offset)
        return BUS_FAULT;
    *ret = 0;
    memcpy(ret, r->host + offset, size);
    return BUS_OK;
}

enum bus_result mem_write(struct mem *mem, gpa_t gpa, unsigned size, uint64_t value)
{
    const struct mem_region *r = mem_find(mem, gpa);

    if (!r)
        return BUS_UNHANDLED;
    uint64_t offset = gpa.v - r->base.v;
    if (!r->host || !r->writable) {
        enum bus_result rc = mmio_write(r, offset, size, value);

        trace_mmio_write(r->name, gpa.v, size, value, (int)rc);
        return rc;
    }
    if (size > r->size - offset)
        return BUS_FAULT;
    memcpy(r->host + offset, &value, size);
    mem_written(mem, gpa, size);
    return BUS_OK;
}

int mem_discard(struct mem *mem, gpa_t gpa, uint64_t size)
{
    uint64_t end;

    if (!checked_add(gpa.v, size, &end))
        return -EINVAL;
    gpa_t first = GPA(align_up(gpa.v, MEM_PAGE_SIZE));
    end = align_down(end, MEM_PAGE_SIZE);
    if (first.v < gpa.v || end <= first.v)
        return 0;
    void *p = mem_ptr(mem, first, end - first.v, true);
    if (!p)
        return -EFAULT;
    if (madvise(p, end - first.v, MADV_DONTNEED))
        return -errno;
    mem_written(mem, first, end - first.v);
    return 0;
}

static bool is_zero(const uint8_t *p, size_t size)
{
    return !*(const uint64_t *)(const void *)p && !memcmp(p, p + 8, size - 8);
}

/** Is the huge page at @p there as a whole? */
static bool is_resident(uint8_t *p)
{
    uint8_t pages[HUGE_SIZE / MEM_PAGE_SIZE];

    return !mincore(p, HUGE_SIZE, pages) && !memchr(pages, 0, sizeof(pages));
}

uint64_t mem_trim(struct mem *mem)
{
    uint64_t freed = 0;

    for (size_t i = 0; i < mem->count; i++) {
        const struct mem_region *r = &mem->regions[i];

        if (!r->host || !r->writable || r->size < HUGE_SIZE)
            continue;
        uint8_t *end = r->host + r->size - HUGE_SIZE;
        for (uint8_t *p = (uint8_t *)align_up((uintptr_t)r->host, HUGE_SIZE); p <= end;
             p += HUGE_SIZE) {
            if (is_resident(p) && is_zero(p, HUGE_SIZE) && !madvise(p, HUGE_SIZE, MADV_DONTNEED))
                freed += HUGE_SIZE; /* it reads as zeroes still */
        }
    }
    return freed;
}

uint64_t mem_ram_bytes(const struct mem *mem)
{
    uint64_t total = 0;

    for (size_t i = 0; i < mem->count; i++)
        total += mem->regions[i].host && mem->regions[i].writable ? mem->regions[i].size : 0;
    return total;
}
