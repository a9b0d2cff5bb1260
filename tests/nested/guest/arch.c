/* What the architecture says of absent registers, ports and memory, of interrupts and exceptions: a
 * line for each check. */
#include "lib.h"

#define RAM_END   0x4000000u  /* the machine has 64 MiB */
#define NOTHING   0xd0000000u /* in PCI's memory, where no BAR is */
#define IOAPIC    0xfec00000u
#define APIC_BASE 0x1b
#define ICR_LOW   (LAPIC + 0x300)
#define ICR_HIGH  (LAPIC + 0x310)

/** Until @vector has come @count times, or some time has passed. */
static bool wait_for(unsigned vector, unsigned count)
{
    for (unsigned i = 0; i < 20000000 && trap_count[vector] < count; i++)
        __asm__ volatile("pause");
    return trap_count[vector] >= count;
}

static void check_msrs(void)
{
    static const uint32_t absent[] = {0x12345, 0x4b564dff, 0xc0017fff};

    for (unsigned i = 0; i < 3; i++) {
        check_equal(read_msr_trap(absent[i]), PROTECTION, "absent register read");
        check_equal(write_msr_trap(absent[i], 1, 2), PROTECTION, "absent register written");
    }
    check_equal(trap_error, 0, "with error code 0");
    check_equal(write_msr_trap(0xc0000080, 0xffffffff, 0xffffffff), PROTECTION,
                "EFER with reserved bits");
    check_equal(write_msr_trap(APIC_BASE, 0, 0xffffffff), PROTECTION, "APIC base beyond memory");
}

static void check_ports(void)
{
    uint8_t buffer[32] = {0};
    uint8_t *p = buffer;
    uint32_t n = sizeof(buffer);
    bool ones = true;

    check_equal(in8(0x1234), 0xff, "absent port, byte");
    check_equal(in16(0x1235), 0xffff, "absent port, odd word");
    check_equal(in32(0xfffd), 0xffffffff, "port space's end");
    out8(0x1234, 1);
    out16(0x1235, 1);
    out32(0xffff, 1);
    __asm__ volatile("rep insb" : "+D"(p), "+c"(n) : "d"(0x1234) : "memory");
    for (unsigned i = 0; i < sizeof(buffer); i++)
        ones = ones && buffer[i] == 0xff;
    check(ones && n == 0 && p == buffer + sizeof(buffer), "string from an absent port");
    p = buffer;
    n = sizeof(buffer);
    __asm__ volatile("rep outsb" : "+S"(p), "+c"(n) : "d"(0x1234) : "memory");
    check(n == 0, "string to an absent port");
}

static void check_memory(void)
{
    uint8_t buffer[64] = {0};
    void *to = buffer;
    void *from = (void *)NOTHING;
    uint32_t n = sizeof(buffer);
    uint32_t value = 5;

    check_equal(*at(NOTHING), 0xffffffff, "nothing reads as ones");
    *at(NOTHING) = 0;
    check_equal(*at(NOTHING), 0xffffffff, "and ignores writes");
    check_equal(*(volatile uint8_t *)(NOTHING + 3), 0xff, "byte of nothing");
    check_equal(*at(NOTHING + 0xffe), 0xffffffff, "across a page of nothing");
    *at(RAM_END - 4) = 0x12345678;
    check_equal(*at(RAM_END - 2), 0xffff1234, "half memory, half nothing");
    *at(RAM_END - 2) = 0xaaaabbbb;
    check_equal(*at(RAM_END - 4), 0xbbbb5678, "written half");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    check(n == 0 && buffer[0] == 0xff && buffer[63] == 0xff, "string of nothing");
    __asm__ volatile("xchgl %0, (%1)" : "+r"(value) : "r"(NOTHING) : "memory");
    check_equal(value, 0xffffffff, "exchange with nothing");
    value = TRAP_OF("lock incl (%0)", : : "r"(NOTHING) : "memory");
    check_equal(value, NONE, "locked increment of nothing");
    check_equal(*at(0xfffffffc), 0xffffffff, "no firmware at the end");
}

static void check_exceptions(void)
{
    check_equal(TRAP_OF("ud2", : : : "memory"), UNDEFINED, "undefined instruction");
    check_equal(TRAP_OF("int3", : : : "memory"), BREAKPOINT, "breakpoint");
    check_equal(TRAP_OF("divl %0",
                        :
                        : "r"(0)
                        : "eax", "edx", "memory"),
                DIVIDE, "division by zero");
    check_equal(TRAP_OF(".byte 0x0f, 0x01, 0xd8",
                        :
                        : "a"(0)
                        : "memory"),
                UNDEFINED, "VMRUN, which is not offered");
    check_equal(TRAP_OF("mov %0, %%cr4",
                        :
                        : "r"(1u << 31)
                        : "memory"),
                PROTECTION, "CR4 with reserved bits");
    check_equal(TRAP_OF("mov %0, %%cr0",
                        :
                        : "r"(0x80000000)
                        : "memory"),
                PROTECTION, "paging without protection");
    check_equal(TRAP_OF("mov %0, %%ds",
                        :
                        : "r"(0xfff8)
                        : "memory"),
                PROTECTION, "a selector beyond the table");
    check_equal(trap_error, 0xfff8, "its error code");
    check_equal(TRAP_OF("pushf; orl $0x100, (%%esp); popf; nop; nop",
                        :
                        :
                        : "memory"),
                DEBUG, "a step");
}

/** Not among the others: QEMU 7.2 ends when a guest of its emulated SVM does this. */
void check_debug(void)
{
    uint32_t eax = 0;

    __asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(&&here), "r"(0x402));
    unsigned before = trap_count[DEBUG];
here:
    __asm__ volatile("nop");
    check_equal(trap_count[DEBUG], before + 1, "a breakpoint of the guest's own");
    __asm__ volatile("mov %%dr6, %0; mov %1, %%dr7" : "=r"(eax) : "r"(0x400));
    check_equal(eax & 0xf, 1, "DR6 says which");
}

static void check_identity(void)
{
    uint32_t r[4];
    uint32_t low, later, high;

    cpuid(1, r);
    check(r[2] >> 31, "a hypervisor is there");
    cpuid(0x40000000, r);
    check(r[1] == 0x4b4d564b && r[2] == 0x564b4d56 && r[3] == 0x4d, "and is KVM");
    cpuid(0x80000001, r);
    check(!(r[2] & 4), "SVM is not offered");
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    __asm__ volatile("rdtsc" : "=a"(later), "=d"(high));
    check(later - low < 0x40000000, "the counter goes forward");
}

static void enable_lapic(void)
{
    write_msr(APIC_BASE, LAPIC | 0x100);
    write_msr(APIC_BASE, LAPIC | 0x900);
    *at(LAPIC + 0xf0) = 0x1ff;
    *at(LAPIC + 0x80) = 0; /* all priorities */
}

static void check_lapic(void)
{
    enable_lapic();
    uint32_t version = *at(LAPIC + 0x30);
    check(version && version != 0xffffffff, "local APIC's version");
    for (uint32_t offset = 0; offset < 0x1000; offset += 4) {
        if (offset == 0x300) /* it would send something */
            continue;
        *at(LAPIC + offset) = 0xffffffff;
        *(volatile uint8_t *)(LAPIC + offset + 1) = 0xff;
        (void)*(volatile uint16_t *)(LAPIC + offset + 2);
    }
    *at(ICR_LOW) = 0x000c0000 | 0x600; /* to others, of which there are none: a start-up */
    *at(ICR_HIGH) = 0xff000000;
    *at(ICR_LOW) = 0x4000 | 0x55; /* a processor that is not there: broadcast in this mode */
    enable_lapic();
    check_equal(*at(LAPIC + 0x30), version, "wild writes do not change its version");
    __asm__ volatile("sti");
    *at(ICR_LOW) = 0x40000 | 0x61;
    check(wait_for(0x61, 1), "an interrupt to itself");
    *at(ICR_HIGH) = 0;
    *at(ICR_LOW) = 0x400;
    check(wait_for(NMI, 1), "an NMI to itself");
    *at(LAPIC + 0x3e0) = 0xb;
    *at(LAPIC + 0x320) = 0x62;
    *at(LAPIC + 0x380) = 1000;
    check(wait_for(0x62, 1), "its timer");
    __asm__ volatile("cli");
}

static void check_smi(void)
{
    static const uint8_t handler[] = {0x66, 0xff, 0x06, 0x00,
                                      0x05, 0x0f, 0xaa}; /* incl 0x500; rsm */

    for (unsigned i = 0; i < sizeof(handler); i++)
        ((volatile uint8_t *)0x38000)[i] = handler[i];
    *at(0x500) = 0;
    *at(ICR_HIGH) = 0;
    *at(ICR_LOW) = 0x200;
    for (unsigned i = 0; i < 100000 && !*at(0x500); i++)
        __asm__ volatile("pause");
    check(*at(0x500) <= 1, "an SMI is served once, or not at all"); /* a kernel without that mode */
}

static void check_x2apic(void)
{
    uint32_t r[4];

    cpuid(1, r);
    check(r[2] >> 21 & 1, "x2APIC is offered");
    write_msr(APIC_BASE, LAPIC | 0xd00);
    check_equal(read_msr_trap(0x802), NONE, "its ID");
    check_equal(write_msr_trap(0x802, 1, 0), PROTECTION, "which is read-only");
    check_equal(read_msr_trap(0x80e), PROTECTION, "a register that is not there");
    __asm__ volatile("sti");
    write_msr(0x830, 0x40000 | 0x63);
    for (unsigned i = 0; i < 1000000 && !trap_count[0x63]; i++)
        __asm__ volatile("pause");
    __asm__ volatile("cli");
    check_equal(trap_count[0x63], 1, "an interrupt to itself by it");
    write_msr_trap(0x80b, 0, 0);
    check_equal(write_msr_trap(APIC_BASE, LAPIC | 0x900, 0), PROTECTION, "no way straight back");
    enable_lapic();
}

static void check_pic(void)
{
    static const uint8_t init[][2] = {
        {0x20, 0x11},
        {0x21, 0x20},
        {0x21, 4   },
        {0x21, 1   },
        {0xa0, 0x11},
        {0xa1, 0x28},
        {0xa1, 2   },
        {0xa1, 1   },
        {0x21, 0xfe},
        {0xa1, 0xff}
    };

    *at(LAPIC + 0x350) = 0x700; /* LINT0: the PIC's */
    for (unsigned i = 0; i < sizeof(init) / sizeof(init[0]); i++)
        out8(init[i][0], init[i][1]);
    out8(0x43, 0x34);
    out8(0x40, 0x00);
    out8(0x40, 0x10);
    __asm__ volatile("sti");
    bool came = wait_for(0x20, 3);
    __asm__ volatile("cli");
    out8(0x21, 0xff);
    check(came, "the interval timer's interrupts");
}

static void write_wildly(void)
{
    for (unsigned i = 0; i < 256; i++) {
        *at(IOAPIC) = i;
        *at(IOAPIC + 0x10) = 0xffffffff;
        (void)*at(IOAPIC + 0x10);
    }
    *at(IOAPIC + 0x40) = 0xffffffff;
    for (uint32_t at = 0x80000000; at < 0x80010000;
         at += at & 0xfc ? 4 : 0x704) { /* first functions */
        out32(0xcf8, at);
        out32(0xcfc, 0xffffffff);
        out32(0xcfc, 0);
    }
    check(true, "wild writes to IOAPIC and PCI");
}

void check_all(void)
{
    check_identity();
    check_msrs();
    check_ports();
    check_memory();
    check_exceptions();
    check_lapic();
    check_smi();
    check_x2apic();
    check_pic();
    write_wildly();
    print("all done\n");
}
