/* Firmware's debugging port: a read gives 0xe9, by which it is known; writes are collected to
 * lines, which are trace events. Not saved: a line that was begun.
 *
 * Threads: vCPUs; one lock. */
#include "device/pc/debugcon.h"
#include "base/thread.h"
#include "device/pc/trace_pc.h"

#include <errno.h>
#include <stdlib.h>

struct debugcon {
    struct mutex lock;
    unsigned count; /* [lock] */
    char line[200]; /* [lock] */
};

static enum bus_result debugcon_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    *ret = 0xe9;
    return BUS_OK;
}

static enum bus_result debugcon_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugcon *d = dev;

    mutex_lock(&d->lock);
    if (value != '\n' && value != '\r')
        d->line[d->count++] = (char)(value >= ' ' && value < 0x7f ? value : '?');
    if (d->count && (value == '\n' || d->count == sizeof(d->line) - 1)) {
        d->line[d->count] = '\0';
        trace_firmware(d->line);
        d->count = 0;
    }
    mutex_unlock(&d->lock);
    return BUS_OK;
}

static const struct mmio_ops debugcon_ops = {
    .name = "debugcon",
    .read = debugcon_read,
    .write = debugcon_write,
    .max_size = 1,
};

int debugcon_new(struct mem *ports, struct debugcon **ret, struct error *err)
{
    struct debugcon *d = calloc(1, sizeof(*d));

    if (!d)
        return error_set(err, ENOMEM, "out of memory");
    mutex_init(&d->lock);
    int rc = mem_add_mmio(ports, GPA(DEBUGCON_PORT), 1, &debugcon_ops, d, err);
    if (rc) {
        debugcon_free(d);
        return rc;
    }
    *ret = d;
    return 0;
}

void debugcon_free(struct debugcon *d)
{
    if (!d)
        return;
    mutex_done(&d->lock);
    free(d);
}
