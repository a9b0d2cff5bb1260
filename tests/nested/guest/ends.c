/* Ways in which a guest can end its machine, or wedge itself. */
#include "lib.h"

static bool is(const char *a, const char *b)
{
    for (; *a && *a == *b; a++)
        b++;
    return *a == *b;
}

static void triple_fault(void)
{
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) none = {0, 0};

    __asm__ volatile("lidt %0; int3" : : "m"(none));
}

/** What is not memory cannot be executed: KVM gives up, and says so. */
static void execute_nothing(void)
{
    ((void (*)(void))0xd0000000)();
}

/** Nobody wakes it: not even an NMI comes. */
static void halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/** A place without RSM, of zeroes: the handler runs wild. */
static void system_management(void)
{
    for (unsigned i = 0; i < 0x8000; i += 4)
        *at(0x38000 + i) = 0;
    *at(LAPIC + 0x310) = 0;
    *at(LAPIC + 0x300) = 0x200;
    end(7); /* this machine has no such mode */
}

/** An interrupt in whose handler there is one again, for ever. */
static void storm(void)
{
    write_msr(0x1b, (read_msr(0x1b) & ~0xfffu) | 0x900);
    *at(LAPIC + 0xf0) = 0x1ff;
    *at(LAPIC + 0x320) = 0x20040; /* timer, periodic */
    *at(LAPIC + 0x3e0) = 0xb;
    *at(LAPIC + 0x380) = 1;
    __asm__ volatile("sti");
    for (;;)
        ;
}

static void keyboard_reset(void)
{
    out8(0x64, 0xfe);
}

static void control_reset(void)
{
    out8(0xcf9, 6);
}

static void power_off(void)
{
    out16(0x604, 1 << 13); /* PM1a_CNT: SLP_EN, and the type that \_S5 has */
}

/** For a debugger: a loop that counts, at addresses that nm tells. */
volatile uint32_t counter;
void count_once(void);
__attribute__((noinline)) void count_once(void)
{
    counter++;
}

static void count(void)
{
    for (;;)
        count_once();
}

/** Checks of debug registers alone. */
static void debug(void)
{
    check_debug();
    print("all done\n");
    end(0);
}

void end_as(const char *word)
{
    static const struct {
        const char *word;
        void (*fn)(void);
    } ways[] = {
        {"triple",          triple_fault     },
        {"execute-nothing", execute_nothing  },
        {"halt",            halt             },
        {"smm",             system_management},
        {"storm",           storm            },
        {"keyboard",        keyboard_reset   },
        {"control",         control_reset    },
        {"off",             power_off        },
        {"count",           count            },
        {"debug",           debug            },
    };

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (is(word, ways[i].word)) {
            print("end as ");
            print(word);
            print("\n");
            ways[i].fn();
            for (;;) /* a reset takes its time */
                __asm__ volatile("pause");
        }
    }
}
