/* Power control register of the virt boards: the SiFive test finisher, which Linux's
 * syscon-poweroff and syscon-reboot drivers use too. A write of 0x5555 powers off, 0x7777 resets,
 * 0x3333 powers off with the failure code in the upper half. Threads: any. Stateless. */
#include "device/power/syscon.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

struct syscon {
    struct syscon_config config; /* [init] */
};

static enum bus_result syscon_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    *ret = 0;
    return BUS_OK;
}

static enum bus_result syscon_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    const struct syscon_config *c = &((struct syscon *)dev)->config;
    unsigned code = (unsigned)(value >> 16 & 0xffff);

    if (offset)
        return BUS_OK;
    switch (value & 0xffff) {
    case SYSCON_POWEROFF:
        c->poweroff(c->arg, 0);
        break;
    case SYSCON_FAIL:
        c->poweroff(c->arg, code ? code : 1);
        break;
    case SYSCON_RESET:
        c->reset(c->arg);
        break;
    default:
        guest_error("syscon", "unknown command 0x%llx", (unsigned long long)value);
    }
    return BUS_OK;
}

static const struct mmio_ops syscon_ops = {
    .name = "syscon",
    .read = syscon_read,
    .write = syscon_write,
    .min_size = 2,
    .max_size = 4,
};

int syscon_new(struct mem *mem, gpa_t base, const struct syscon_config *config, struct syscon **ret,
               struct error *err)
{
    struct syscon *s = calloc(1, sizeof(*s));

    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->config = *config;
    int rc = mem_add_mmio(mem, base, SYSCON_SIZE, &syscon_ops, s, err);
    if (rc) {
        free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void syscon_free(struct syscon *s)
{
    free(s);
}
