/* Console, traps, the beginning in C. */
#include "lib.h"

#define SERIAL 0x3f8
#define EXIT   0xf4

struct gate {
    uint16_t low, selector, type, high;
} __attribute__((packed));

volatile uint32_t trap_vector, trap_error, trap_resume;
volatile unsigned trap_count[256];
static struct gate gates[256];
static unsigned bad;

extern const uint8_t entries[];
void start(const struct multiboot *m);
void trap(struct frame *f);

void print(const char *text)
{
    for (; *text; text++)
        out8(SERIAL, (uint8_t)*text);
}

void print_number(uint32_t value)
{
    print("0x");
    for (int shift = 28; shift >= 0; shift -= 4)
        out8(SERIAL, (uint8_t) "0123456789abcdef"[value >> shift & 15]);
}

void check(bool good, const char *what)
{
    bad += !good;
    print(good ? "good " : "bad ");
    print(what);
    print("\n");
}

void check_equal(uint32_t got, uint32_t want, const char *what)
{
    if (got != want) {
        print("# ");
        print_number(got);
        print(" is not ");
        print_number(want);
        print("\n");
    }
    check(got == want, what);
}

_Noreturn void end(uint32_t status)
{
    out32(EXIT, status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void trap(struct frame *f)
{
    trap_count[f->vector]++;
    if (trap_resume && f->vector < 32) {
        trap_vector = f->vector;
        trap_error = f->error;
        f->eip = trap_resume;
        f->eflags &= ~0x100u; /* no further steps */
        trap_resume = 0;
    } else if (f->vector == DEBUG) {
        f->eflags = (f->eflags & ~0x100u) | 0x10000; /* past a breakpoint, once */
    } else if (f->vector >= 32) {
        if (f->vector < 48)
            out8(0x20, 0x20);
        else
            *at(LAPIC + 0xb0) = 0;
    } else if (f->vector != NMI && f->vector != BREAKPOINT) {
        print("bad exception ");
        print_number(f->vector);
        print(" at ");
        print_number(f->eip);
        print("\n");
        end(99);
    }
}

static void set_gates(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) table = {sizeof(gates) - 1, (uint32_t)gates};
    uint16_t cs;
    const uint8_t *entry = entries;

    __asm__("mov %%cs, %0" : "=r"(cs));
    for (unsigned i = 0; i < 256; i++, entry += 16)
        gates[i] = (struct gate){
            .low = (uint16_t)(uint32_t)entry,
            .selector = cs,
            .type = 0x8e00,
            .high = (uint16_t)((uint32_t)entry >> 16),
        };
    __asm__ volatile("lidt %0" : : "m"(table));
}

void start(const struct multiboot *m)
{
    const char *word = m->flags & 4 ? (const char *)m->cmdline : "";

    for (const char *p = word; *p; p++) {
        if (*p == ' ')
            word = p + 1;
    }
    set_gates();
    end_as(word);
    check_all();
    end(bad ? 1 : 0);
}
