/* What the guest programs share: console, traps, ports. They run in 32-bit protected mode on the
 * bare machine. */
#ifndef NESTED_GUEST_LIB_H
#define NESTED_GUEST_LIB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NONE 0xffffffffu

/** Multiboot 0.6.96 §3.3, as far as wanted. */
struct multiboot {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

/** As common in start.S leaves it. */
struct frame {
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
    uint32_t vector, error, eip, cs, eflags;
};

/** The last exception that was expected, and how often each vector came. */
extern volatile uint32_t trap_vector, trap_error, trap_resume;
extern volatile unsigned trap_count[256];

/** Run assembler text and say which exception it made; NONE if it came to its end. */
#define TRAP_OF(text, ...)                                          \
    ({                                                              \
        trap_vector = NONE;                                         \
        __asm__ volatile("movl $1f, trap_resume\n\t" text           \
                         "\n1:\tmovl $0, trap_resume" __VA_ARGS__); \
        trap_vector;                                                \
    })

void print(const char *text);
void print_number(uint32_t value);
/** A line of the result. */
void check(bool good, const char *what);
void check_equal(uint32_t got, uint32_t want, const char *what);
/** End the machine with this status (PM_EXIT_PORT). */
_Noreturn void end(uint32_t status);

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint16_t in16(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint32_t in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline volatile uint32_t *at(uint32_t address)
{
    return (volatile uint32_t *)address;
}

static inline uint32_t read_msr(uint32_t index)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return low;
}
static inline void write_msr(uint32_t index, uint32_t low)
{
    __asm__ volatile("wrmsr" : : "c"(index), "a"(low), "d"(0));
}

/** Exceptions of a register access. */
static inline uint32_t read_msr_trap(uint32_t index)
{
    return TRAP_OF("rdmsr", : : "c"(index) : "eax", "edx", "memory");
}
static inline uint32_t write_msr_trap(uint32_t index, uint32_t low, uint32_t high)
{
    return TRAP_OF("wrmsr", : : "c"(index), "a"(low), "d"(high) : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t ret[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(ret[0]), "=b"(ret[1]), "=c"(ret[2]), "=d"(ret[3])
                     : "a"(leaf), "c"(0));
}

enum { DIVIDE, DEBUG, NMI, BREAKPOINT, UNDEFINED = 6, PROTECTION = 13 };
#define LAPIC 0xfee00000u

/* arch.c */
void check_all(void);
void check_debug(void);
/* ends.c: ways to end, by the command line's last word. Returns if there is none of this name. */
void end_as(const char *word);

#endif
