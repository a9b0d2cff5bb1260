/* Fuzz target: calls to the built-in SBI with arbitrary registers from four harts. Input: records
 * of 37 bytes: hart and what interrupts are pending; extension; function; four arguments. Small
 * numbers select known extensions and addresses, so that mutations find their way in. */
#include "base/bits.h"
#include "boot/sbi_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RAM 0x80000000ULL

struct fake {
    struct vcpu vcpu;
    uint64_t regs[65 + 4096];
};

static struct fake fakes[4];
static struct vcpu *const vcpus[4] = {&fakes[0].vcpu, &fakes[1].vcpu, &fakes[2].vcpu,
                                      &fakes[3].vcpu};

static void set_irq(struct vcpu *v, unsigned irq, bool level)
{
    if (irq != 1)
        abort();
}

static void request(struct vcpu *v, unsigned requests)
{
    if (!requests)
        abort();
}

static void fence(struct vcpu *v, const struct vcpu_fence *f)
{
    if (f->size == UINT64_MAX && f->start)
        abort(); /* everything begins at 0 */
}

static void reset(struct vcpu *v)
{
    memset(((struct fake *)v)->regs, 0, 65 * 8);
}

static int get_reg(struct vcpu *v, unsigned id, uint64_t *ret)
{
    if (id >= ARRAY_SIZE(fakes[0].regs))
        return -ENOENT;
    *ret = ((struct fake *)v)->regs[id];
    return 0;
}

static int set_reg(struct vcpu *v, unsigned id, uint64_t value)
{
    if (id >= ARRAY_SIZE(fakes[0].regs))
        return -ENOENT;
    ((struct fake *)v)->regs[id] = value;
    return 0;
}

static const struct vcpu_ops ops = {
    .name = "fuzz",
    .set_irq = set_irq,
    .request = request,
    .fence = fence,
    .reset = reset,
    .get_reg = get_reg,
    .set_reg = set_reg,
};

static void host_reset(void *arg, enum sbi_reset kind, bool failure)
{
}

static size_t host_write(void *arg, const void *data, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum += ((const uint8_t *)data)[i]; /* a sanitizer sees bytes that are not there */
    return sum & 1 ? size : size / 2;
}

static size_t host_read(void *arg, void *data, size_t size)
{
    memset(data, 'x', size);
    return size;
}

static void host_wake(void *arg, unsigned index)
{
    if (index >= 4)
        abort();
}

static void step(struct sbi *sbi, const uint8_t *p)
{
    static const uint32_t extensions[] = {
        SBI_EID_BASE, SBI_EID_TIME, SBI_EID_IPI,  SBI_EID_RFNC, SBI_EID_HSM,
        SBI_EID_SRST, SBI_EID_PMU,  SBI_EID_DBCN, SBI_EID_SUSP,
    };
    unsigned hart = p[0] & 3;
    uint64_t *regs = fakes[hart].regs;
    int64_t deadline;

    regs[REG_CSR + CSR_SIP] = p[0] >> 2;
    regs[REG_CSR + CSR_SIE] = p[1];
    if (!sbi_hart_ready(sbi, hart, &deadline))
        return;
    regs[REG_A7] = p[2] < ARRAY_SIZE(extensions) ? extensions[p[2]] : load_le32(p + 2);
    regs[REG_A6] = p[6];
    for (unsigned i = 0; i < 4; i++) {
        regs[REG_A0 + i] = load_le64(p + 8 + 7 * i);
        if (p[7] & 1u << i)
            regs[REG_A0 + i] = RAM + (regs[REG_A0 + i] & 0x1ffff);
        else if (p[7] & 16u << i)
            regs[REG_A0 + i] &= 0xfff;
    }
    sbi_call(sbi, hart);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vclock guest_clock;
    struct sbi_config c = {
        .mem = mem_new(),
        .vcpus = vcpus,
        .count = 4,
        .clock = &guest_clock,
        .timebase_hz = 10000000,
        .host = {.reset = host_reset,
                 .console_write = host_write,
                 .console_read = host_read,
                 .wake = host_wake},
    };
    struct sbi *sbi;

    vclock_init(&guest_clock, 0);
    memset(fakes, 0, sizeof(fakes));
    for (unsigned i = 0; i < 4; i++)
        fakes[i].vcpu = (struct vcpu){.ops = &ops, .index = i};
    if (!c.mem || mem_add_ram(c.mem, GPA(RAM), 0x10000, 0, "ram", NULL, NULL, NULL, NULL) ||
        sbi_new(&c, &sbi, NULL))
        abort();
    sbi_reset(sbi, GPA(RAM), 0);
    for (; size >= 37; data += 37, size -= 37)
        step(sbi, data);
    sbi_free(sbi);
    mem_free(c.mem);
    return 0;
}
