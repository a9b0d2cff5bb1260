/* For bare-metal riscv64 guests: CSRs, random numbers, text on the UART, power off. M-mode, one
 * hart, physical addresses; runs on any `virt` machine and on the tests' own small machines. */
#ifndef GUEST_LIB_GUEST_H
#define GUEST_LIB_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#define UART_ADDR     0x10000000ULL
#define POWER_ADDR    0x100000ULL
#define MTIMECMP_ADDR 0x2004000ULL

#define CSR_SET(csr, value)                                                        \
    do {                                                                           \
        __asm__ volatile("csrw " #csr ", %0" ::"r"((uint64_t)(value)) : "memory"); \
    } while (0)
#define CSR_GET(csr)                                           \
    ({                                                         \
        uint64_t csr_value_;                                   \
        __asm__ volatile("csrr %0, " #csr : "=r"(csr_value_)); \
        csr_value_;                                            \
    })

/** Patched into the image by whoever runs it: see start.S. */
extern uint64_t guest_seed, guest_count;

int guest_main(void);

static inline void guest_putc(char c)
{
    volatile uint8_t *uart = (volatile uint8_t *)UART_ADDR;

    while (!(uart[5] & 0x20))
        ;
    uart[0] = (uint8_t)c;
}

static inline void guest_puts(const char *s)
{
    while (*s)
        guest_putc(*s++);
}

/** @v in hexadecimal and a space. */
static inline void guest_put(uint64_t v)
{
    char digits[17] = {0};
    int i = 16;

    do {
        digits[--i] = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v);
    guest_puts(digits + i);
    guest_putc(' ');
}

static inline uint64_t guest_random(void)
{
    guest_seed ^= guest_seed << 13;
    guest_seed ^= guest_seed >> 7;
    guest_seed ^= guest_seed << 17;
    return guest_seed * 0x2545f4914f6cdd1d;
}

static inline bool guest_one_in(unsigned n)
{
    return guest_random() % n == 0;
}

#endif
