/* Tests of the built-in SBI with vCPUs that only hold registers. Section numbers: SBI 3.0. */
#include "base/test.h"
#include "boot/sbi_internal.h"

#include <errno.h>

#define RAM 0x80000000ULL

struct fake {
    struct vcpu vcpu;
    uint64_t regs[65];
    uint64_t sip, sie, stimecmp, mcountinhibit, mhpmevent3, mhpmcounter3;
    uint64_t irqs;
    unsigned requests, resets;
    struct vcpu_fence fence;
};

static struct fake fakes[4];
static struct vcpu *vcpus[4];
static struct mem *mem;
static struct vclock guest_clock;
static struct sbi *sbi;
static char console[4096];
static size_t console_size, console_room = sizeof(console);
static const char *typed = "";
static int wakes[4];
static int resets = -1, failure;

static struct fake *fake_of(struct vcpu *v)
{
    return (struct fake *)v;
}

static void fake_set_irq(struct vcpu *v, unsigned irq, bool level)
{
    fake_of(v)->irqs = (fake_of(v)->irqs & ~(1ULL << irq)) | (uint64_t)level << irq;
}

static void fake_request(struct vcpu *v, unsigned requests)
{
    fake_of(v)->requests |= requests;
}

static void fake_fence(struct vcpu *v, const struct vcpu_fence *f)
{
    fake_of(v)->fence = *f;
}

static void fake_reset(struct vcpu *v)
{
    memset(fake_of(v)->regs, 0, sizeof(fake_of(v)->regs));
    fake_of(v)->resets++;
}

static uint64_t *fake_reg(struct vcpu *v, unsigned id)
{
    struct fake *f = fake_of(v);

    if (id < 65)
        return &f->regs[id];
    switch (id - REG_CSR) {
    case CSR_SIP:
        return &f->sip;
    case CSR_SIE:
        return &f->sie;
    case CSR_STIMECMP:
        return &f->stimecmp;
    case CSR_MCOUNTINHIBIT:
        return &f->mcountinhibit;
    case CSR_MHPMEVENT0 + 3:
        return &f->mhpmevent3;
    case CSR_MCYCLE + 3:
        return &f->mhpmcounter3;
    default:
        return NULL;
    }
}

static int fake_get_reg(struct vcpu *v, unsigned id, uint64_t *ret)
{
    uint64_t *reg = fake_reg(v, id);

    if (!reg)
        return -ENOENT;
    *ret = *reg;
    return 0;
}

static int fake_set_reg(struct vcpu *v, unsigned id, uint64_t value)
{
    uint64_t *reg = fake_reg(v, id);

    if (!reg)
        return -ENOENT;
    if (id == REG_CSR + CSR_MHPMEVENT0 + 3 && (value & MASK(56)) == 3)
        value &= ~MASK(56); /* an event that the hart does not know */
    *reg = value;
    return 0;
}

static const struct vcpu_ops fake_ops = {
    .name = "fake",
    .set_irq = fake_set_irq,
    .request = fake_request,
    .fence = fake_fence,
    .reset = fake_reset,
    .get_reg = fake_get_reg,
    .set_reg = fake_set_reg,
};

static void host_reset(void *arg, enum sbi_reset kind, bool is_failure)
{
    resets = (int)kind;
    failure = is_failure;
}

static size_t host_write(void *arg, const void *data, size_t size)
{
    size = MIN(size, console_room - console_size);
    memcpy(console + console_size, data, size);
    console_size += size;
    return size;
}

static size_t host_read(void *arg, void *data, size_t size)
{
    size = MIN(size, strlen(typed));
    memcpy(data, typed, size);
    typed += size;
    return size;
}

static void host_wake(void *arg, unsigned index)
{
    wakes[index]++;
}

static void setup(void)
{
    struct sbi_config c = {
        .vcpus = vcpus,
        .count = 4,
        .clock = &guest_clock,
        .timebase_hz = 10000000,
        .host = {.reset = host_reset,
                 .console_write = host_write,
                 .console_read = host_read,
                 .wake = host_wake},
    };
    int64_t deadline;

    vclock_init(&guest_clock, 0);
    c.mem = mem = mem_new();
    ASSERT_EQ(mem_add_ram(mem, GPA(RAM), 0x10000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        fakes[i].vcpu = (struct vcpu){.ops = &fake_ops, .index = i};
        vcpus[i] = &fakes[i].vcpu;
    }
    ASSERT_EQ(sbi_new(&c, &sbi, NULL), 0);
    EXPECT_TRUE(!sbi_hart_ready(sbi, 0, &deadline));
    sbi_reset(sbi, GPA(RAM + 0x200), 0x1234);
    ASSERT_TRUE(sbi_hart_ready(sbi, 0, &deadline));
}

static uint64_t value;

/* Call from hart @h; a1 is left in `value`. */
static int64_t call(unsigned h, uint64_t eid, uint64_t fid, uint64_t a0, uint64_t a1, uint64_t a2,
                    uint64_t a3)
{
    uint64_t *x = fakes[h].regs;

    x[10] = a0;
    x[11] = a1;
    x[12] = a2;
    x[13] = a3;
    x[16] = fid;
    x[17] = eid;
    sbi_call(sbi, h);
    value = x[11];
    return (int64_t)x[10];
}
#define CALL(eid, fid, ...) CALL_(eid, fid, __VA_ARGS__, 0, 0, 0, 0)
#define CALL_(eid, fid, a, b, c, d, ...) \
    call(0, eid, fid, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d))

TEST(reset_starts_hart_0_only)
{
    int64_t deadline;

    setup();
    EXPECT_EQ(fakes[0].regs[32], RAM + 0x200);
    EXPECT_EQ(fakes[0].regs[10], 0);
    EXPECT_EQ(fakes[0].regs[11], 0x1234);
    EXPECT_EQ(fakes[0].resets, 1);
    EXPECT_TRUE(!sbi_hart_ready(sbi, 1, &deadline));
    EXPECT_EQ(deadline, INT64_MAX);
}

TEST(base_and_probe)
{
    static const uint32_t present[] = {0x10,       0x54494d45, 0x735049,   0x52464e43, 0x48534d,
                                       0x53525354, 0x504d55,   0x4442434e, 0x53555350};

    setup();
    EXPECT_EQ(CALL(0x10, 0, 0), 0);
    EXPECT_EQ(value, 3 << 24);
    for (size_t i = 0; i < ARRAY_SIZE(present); i++) {
        EXPECT_EQ(CALL(0x10, 3, present[i]), 0);
        EXPECT_EQ(value, 1);
    }
    EXPECT_EQ(CALL(0x10, 3, 0x535345), 0);
    EXPECT_EQ(value, 0);
    EXPECT_EQ(CALL(0x10, 7, 0), SBI_NOT_SUPPORTED);
    EXPECT_EQ(CALL(0x12345678, 0, 0), SBI_NOT_SUPPORTED);
    for (size_t i = 0; i < ARRAY_SIZE(present); i++)
        EXPECT_EQ(CALL(present[i], 99, 0), SBI_NOT_SUPPORTED);
}

TEST(timer)
{
    setup();
    EXPECT_EQ(CALL(0x54494d45, 0, 0x123456789ULL), 0);
    EXPECT_EQ(fakes[0].stimecmp, 0x123456789ULL);
    EXPECT_EQ(CALL(0, 0, 77), 0); /* legacy */
    EXPECT_EQ(fakes[0].stimecmp, 77);
}

TEST(ipi_and_fences_reach_exactly_the_harts_named)
{
    setup();
    EXPECT_EQ(CALL(0x735049, 0, 3, 1), 0);
    EXPECT_TRUE(fakes[1].irqs == 2 && fakes[2].irqs == 2 && !fakes[0].irqs && !fakes[3].irqs);
    EXPECT_EQ(CALL(0x735049, 0, 0x10, 0), SBI_INVALID_PARAM); /* §3.1: no hart 4 */
    EXPECT_EQ(CALL(0x735049, 0, 2, 3), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x735049, 0, 1, 4), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x735049, 0, 1, 1ULL << 63), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x735049, 0, 0, UINT64_MAX), 0);
    EXPECT_TRUE(fakes[0].irqs == 2 && fakes[3].irqs == 2);
    EXPECT_EQ(CALL(0x52464e43, 0, 8, 0), 0);
    EXPECT_EQ(fakes[3].requests, VCPU_REQ_ICACHE);
    EXPECT_EQ(CALL(0x52464e43, 1, 4, 0, 0x1000, 0x3000), 0);
    EXPECT_TRUE(fakes[2].fence.start == 0x1000 && fakes[2].fence.size == 0x3000);
    EXPECT_TRUE(!fakes[2].fence.has_asid);
    EXPECT_EQ(fakes[1].fence.size, 0);
    fakes[0].regs[14] = 7; /* a4: the ASID */
    EXPECT_EQ(CALL(0x52464e43, 2, 2, 0, 0, UINT64_MAX), 0);
    EXPECT_EQ(fakes[1].fence.size, UINT64_MAX);
    EXPECT_TRUE(fakes[1].fence.has_asid && fakes[1].fence.asid == 7);
    EXPECT_EQ(CALL(0x52464e43, 1, 8, 0, 0, 0), 0); /* §8.2: all, too */
    EXPECT_EQ(fakes[3].fence.size, UINT64_MAX);
    EXPECT_EQ(fakes[1].requests, 0);
    EXPECT_EQ(CALL(0x52464e43, 3, 1, 0), SBI_NOT_SUPPORTED); /* hypervisor fences */
}

TEST(harts_start_stop_and_report)
{
    int64_t deadline;

    setup();
    EXPECT_EQ(CALL(0x48534d, 2, 1), 0);
    EXPECT_EQ(value, SBI_HART_STOPPED);
    EXPECT_EQ(CALL(0x48534d, 2, 4), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x48534d, 0, 4, RAM), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x48534d, 0, 1, 0x1000), SBI_INVALID_ADDRESS);
    EXPECT_EQ(CALL(0x48534d, 0, 1, RAM + 1), SBI_INVALID_ADDRESS);
    EXPECT_EQ(CALL(0x48534d, 0, 0, RAM), SBI_ALREADY_AVAILABLE);
    EXPECT_EQ(CALL(0x48534d, 0, 1, RAM + 0x40, 99), 0);
    EXPECT_EQ(wakes[1], 1);
    EXPECT_EQ(CALL(0x48534d, 2, 1), 0);
    EXPECT_EQ(value, SBI_HART_START_PENDING);
    EXPECT_TRUE(sbi_hart_ready(sbi, 1, &deadline));
    EXPECT_EQ(fakes[1].regs[32], RAM + 0x40);
    EXPECT_EQ(fakes[1].regs[10], 1);
    EXPECT_EQ(fakes[1].regs[11], 99);
    EXPECT_EQ(CALL(0x48534d, 0, 1, RAM), SBI_ALREADY_AVAILABLE);
    (void)call(1, 0x48534d, 1, 0, 0, 0, 0);
    EXPECT_TRUE(!sbi_hart_ready(sbi, 1, &deadline));
    EXPECT_EQ(CALL(0x48534d, 0, 1, RAM), 0);
}

TEST(suspended_hart_wakes_by_interrupt)
{
    int64_t deadline;

    setup();
    EXPECT_EQ(CALL(0x48534d, 3, 1), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x48534d, 3, 0x10000000), SBI_NOT_SUPPORTED);
    EXPECT_EQ(CALL(0x48534d, 3, 0x80000000, 3), SBI_INVALID_ADDRESS);
    fakes[0].stimecmp = 10000000000000ULL;
    fakes[0].sie = 2;
    EXPECT_EQ(CALL(0x48534d, 3, 0), 0);
    EXPECT_TRUE(!sbi_hart_ready(sbi, 0, &deadline));
    EXPECT_TRUE(deadline > host_now_ns() && deadline < INT64_MAX);
    fakes[0].sip = 0x20; /* not enabled */
    EXPECT_TRUE(!sbi_hart_ready(sbi, 0, &deadline));
    fakes[0].sip = 2;
    unsigned before = fakes[0].resets;
    EXPECT_TRUE(sbi_hart_ready(sbi, 0, &deadline));
    EXPECT_EQ(fakes[0].resets, before); /* retentive: registers stay */
    EXPECT_EQ(CALL(0x48534d, 3, 0x80000000, RAM + 8, 5), 0);
    EXPECT_TRUE(sbi_hart_ready(sbi, 0, &deadline));
    EXPECT_EQ(fakes[0].regs[32], RAM + 8);
    EXPECT_EQ(fakes[0].regs[11], 5);
}

TEST(system_suspend_needs_all_others_stopped)
{
    int64_t deadline;

    setup();
    EXPECT_EQ(CALL(0x53555350, 0, 1, RAM), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x53555350, 0, 0x80000000, RAM), SBI_NOT_SUPPORTED);
    EXPECT_EQ(CALL(0x53555350, 0, 0, 0), SBI_INVALID_ADDRESS);
    EXPECT_EQ(CALL(0x48534d, 0, 2, RAM), 0);
    EXPECT_EQ(CALL(0x53555350, 0, 0, RAM, 7), SBI_DENIED);
    EXPECT_TRUE(sbi_hart_ready(sbi, 2, &deadline));
    (void)call(2, 0x48534d, 1, 0, 0, 0, 0);
    EXPECT_EQ(CALL(0x53555350, 0, 0, RAM + 0x10, 7), 0);
    EXPECT_TRUE(!sbi_hart_ready(sbi, 0, &deadline));
    fakes[0].sip = fakes[0].sie = 0x200;
    EXPECT_TRUE(sbi_hart_ready(sbi, 0, &deadline));
    EXPECT_EQ(fakes[0].regs[32], RAM + 0x10);
    EXPECT_EQ(fakes[0].regs[11], 7);
}

TEST(system_reset)
{
    setup();
    EXPECT_EQ(CALL(0x53525354, 0, 3, 0), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x53525354, 0, 0, 2), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x53525354, 0, 0xf0000000, 0), SBI_NOT_SUPPORTED);
    EXPECT_EQ(resets, -1);
    EXPECT_EQ(CALL(0x53525354, 0, 0, 1), 0);
    EXPECT_EQ(resets, SBI_RESET_SHUTDOWN);
    EXPECT_EQ(failure, 1);
    EXPECT_EQ(CALL(0x53525354, 0, 2, 0), 0);
    EXPECT_EQ(resets, SBI_RESET_WARM);
    EXPECT_EQ(failure, 0);
}

TEST(debug_console)
{
    char buf[8] = {0};

    setup();
    ASSERT_EQ(mem_copy_out(mem, GPA(RAM), "hello", 5), 0);
    EXPECT_EQ(CALL(0x4442434e, 0, 5, RAM, 0), 0);
    EXPECT_EQ(value, 5);
    EXPECT_MEM(console, "hello", 5);
    EXPECT_EQ(CALL(0x4442434e, 0, 5, 0x1000, 0), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x4442434e, 0, 5, RAM + 0xfffe, 0), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x4442434e, 0, 5, RAM, 1), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x4442434e, 0, UINT64_MAX, RAM, 0), SBI_INVALID_PARAM);
    console_room = console_size + 2;
    EXPECT_EQ(CALL(0x4442434e, 0, 5, RAM, 0), 0);
    EXPECT_EQ(value, 2); /* §12.1: less than asked for is fine */
    EXPECT_EQ(CALL(0x4442434e, 2, 'x'), SBI_FAILED);
    typed = "abc";
    EXPECT_EQ(CALL(0x4442434e, 1, 2, RAM + 8, 0), 0);
    EXPECT_EQ(value, 2);
    ASSERT_EQ(mem_copy_in(mem, GPA(RAM + 8), buf, 2), 0);
    EXPECT_STR(buf, "ab");
    EXPECT_EQ(CALL(2, 0, 0), 'c'); /* legacy getchar */
    EXPECT_EQ(CALL(2, 0, 0), -1);
    EXPECT_EQ(CALL(0x4442434e, 1, 4, 0x1000, 0), SBI_INVALID_PARAM);
}

TEST(firmware_counters)
{
    setup();
    EXPECT_EQ(CALL(0x504d55, 0, 0), 0);
    EXPECT_EQ(value, 48);
    EXPECT_EQ(CALL(0x504d55, 1, 1), SBI_INVALID_PARAM); /* the time CSR is no counter */
    EXPECT_EQ(CALL(0x504d55, 1, 2), 0);
    EXPECT_EQ(value, 0xc02 | 63 << 12);
    EXPECT_EQ(CALL(0x504d55, 1, 40), 0);
    EXPECT_EQ(value >> 63, 1);
    /* event 6 (IPIs sent) of type 15 on any counter */
    EXPECT_EQ(CALL(0x504d55, 2, 0, (1ULL << 48) - 1, 2 | 4, 0xf0006), 0);
    uint64_t counter = value;
    EXPECT_EQ(counter, 32);
    EXPECT_EQ(CALL(0x735049, 0, 3, 1), 0);
    EXPECT_EQ(CALL(0x504d55, 5, counter), 0);
    EXPECT_EQ(value, 2);
    EXPECT_EQ(CALL(0x504d55, 3, counter, 1), SBI_ALREADY_STARTED);
    EXPECT_EQ(CALL(0x504d55, 4, counter, 1, 0), 0);
    EXPECT_EQ(CALL(0x735049, 0, 3, 1), 0);
    EXPECT_EQ(CALL(0x504d55, 5, counter), 0);
    EXPECT_EQ(value, 2);
    EXPECT_EQ(CALL(0x504d55, 4, counter, 1, 0), SBI_ALREADY_STOPPED);
    EXPECT_EQ(CALL(0x504d55, 3, counter, 1, 1, 100), 0);
    EXPECT_EQ(CALL(0x735049, 0, 1, 1), 0);
    EXPECT_EQ(CALL(0x504d55, 5, counter), 0);
    EXPECT_EQ(value, 101);
    EXPECT_EQ(CALL(0x504d55, 5, 33), SBI_INVALID_PARAM); /* not configured */
    EXPECT_EQ(CALL(0x504d55, 2, 0, (1ULL << 48) - 1, 0, 0xf0000), SBI_NOT_SUPPORTED);
    EXPECT_EQ(CALL(0x504d55, 2, 48, 1, 0, 1), SBI_INVALID_PARAM);
    EXPECT_EQ(CALL(0x504d55, 2, 47, 2, 0, 1), SBI_INVALID_PARAM);
}

TEST(hardware_counters_are_inhibited_while_stopped)
{
    setup();
    fakes[0].mcountinhibit = 5;
    EXPECT_EQ(CALL(0x504d55, 2, 0, 7, 0, 2), 0);
    EXPECT_EQ(value, 2);
    EXPECT_EQ(CALL(0x504d55, 3, 2, 1, 0), 0);
    EXPECT_EQ(fakes[0].mcountinhibit, 1);
    EXPECT_EQ(CALL(0x504d55, 4, 2, 1, 1), 0);
    EXPECT_EQ(fakes[0].mcountinhibit, 5);
    EXPECT_EQ(CALL(0x504d55, 3, 2, 1, 0), SBI_INVALID_PARAM); /* given back */
    EXPECT_EQ(CALL(0x504d55, 3, 1, 1, 0), SBI_INVALID_PARAM);
}

TEST(programmable_counters_come_first)
{
    setup();
    EXPECT_EQ(CALL(0x504d55, 1, 3), 0);
    EXPECT_EQ(value, 0xc03 | 63 << 12);
    EXPECT_EQ(CALL(0x504d55, 1, 4), SBI_INVALID_PARAM);
    /* cycles, not in S-mode, cleared */
    fakes[0].mhpmcounter3 = 5;
    EXPECT_EQ(CALL(0x504d55, 2, 0, 0xffffffff, 2 | 1 << 6, 1), 0);
    EXPECT_EQ(value, 3);
    EXPECT_EQ(fakes[0].mhpmevent3, 1ULL << 61 | 1);
    EXPECT_EQ(fakes[0].mhpmcounter3, 0);
    fakes[0].mhpmevent3 |= 1ULL << 63;
    fakes[0].mcountinhibit = 8;
    EXPECT_EQ(CALL(0x504d55, 3, 3, 1, 1, 77), 0);
    EXPECT_EQ(fakes[0].mhpmevent3, 1ULL << 61 | 1); /* overflow is forgotten */
    EXPECT_EQ(fakes[0].mhpmcounter3, 77);
    EXPECT_EQ(fakes[0].mcountinhibit, 0);
    EXPECT_EQ(CALL(0x504d55, 2, 0, 0xffffffff, 0, 1), 0); /* taken: the fixed one is left */
    EXPECT_EQ(value, 0);
    EXPECT_EQ(CALL(0x504d55, 2, 0, 0xffffffff, 0, 1), SBI_NOT_SUPPORTED);
    EXPECT_EQ(CALL(0x504d55, 4, 3, 1, 1), 0);
    EXPECT_EQ(fakes[0].mhpmevent3, 0);
    EXPECT_EQ(fakes[0].mcountinhibit, 8);
    EXPECT_EQ(CALL(0x504d55, 2, 0, 8, 0, 3), SBI_NOT_SUPPORTED);
    EXPECT_EQ(fakes[0].mhpmevent3, 0);
}

TEST(legacy_calls_return_one_value)
{
    setup();
    EXPECT_EQ(CALL(1, 0, 'x', 55), 0);
    EXPECT_EQ(value, 55);
    EXPECT_EQ(console[0], 'x');
    EXPECT_EQ(CALL(4, 0, RAM), SBI_NOT_SUPPORTED);
    fakes[0].irqs = 2;
    EXPECT_EQ(CALL(3, 0, 0), 0);
    EXPECT_EQ(fakes[0].irqs, 0);
    EXPECT_EQ(CALL(8, 0, 0), 0);
    EXPECT_EQ(resets, SBI_RESET_SHUTDOWN);
}
