/* Hostile debugger: bytes as they come from the client, against two fake vCPUs. */
#include "gdb/gdb_internal.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

static uint64_t regs[33];

static int get_reg(struct vcpu *v, unsigned id, uint64_t *ret)
{
    *ret = regs[id % 33];
    return 0;
}

static int set_reg(struct vcpu *v, unsigned id, uint64_t value)
{
    regs[id % 33] = value;
    return 0;
}

static const struct vcpu_reg *registers(struct vcpu *v, size_t *ret_count)
{
    static const struct vcpu_reg table[] = {
        {.name = "ra", .group = "general", .feature = "cpu", .bits = 64, .id = 1 },
        {.name = "pc", .group = "general", .feature = "cpu", .bits = 64, .id = 32},
    };

    *ret_count = ARRAY_SIZE(table);
    return table;
}

static int translate(struct vcpu *v, gva_t va, enum vcpu_access access, gpa_t *ret)
{
    *ret = GPA(va.v);
    return va.v & 0x1000 ? -EFAULT : 0;
}

static void set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
}

static void nothing(void *arg)
{
}

static void resume(void *arg, uint64_t mask)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vcpu_ops ops = {.get_reg = get_reg,
                                        .set_reg = set_reg,
                                        .registers = registers,
                                        .translate = translate,
                                        .set_debug = set_debug};
    static struct vcpu fakes[2] = {
        {.ops = &ops},
        { .ops = &ops, .index = 1}
    };
    static struct vcpu *vcpus[2] = {&fakes[0], &fakes[1]};
    static struct gdb_server g;
    static struct mem *mem;
    char packet[GDB_PACKET_MAX + 1];
    size_t packet_size;

    if (!mem) {
        mem = mem_new();
        if (mem_add_ram(mem, GPA(0), 0x4000, 0, "ram", NULL, NULL, NULL, NULL))
            return 0;
    }
    memset(&g, 0, sizeof(g));
    g.client.fd = -1; /* answers go nowhere */
    g.target = (struct gdb_target){.mem = mem,
                                   .vcpus = vcpus,
                                   .vcpu_count = 2,
                                   .stop = nothing,
                                   .resume = resume,
                                   .kill = nothing,
                                   .reset = nothing};
    while (size) {
        size_t n = MIN(size, sizeof(g.in) - g.in_size);
        int rc;

        memcpy(g.in + g.in_size, data, n);
        g.in_size += n;
        data += n;
        size -= n;
        while ((rc = gdb_take_packet(&g, packet, &packet_size)))
            if (rc == 1)
                gdb_command(&g, packet, packet_size);
    }
    return 0;
}
