/* Litmus tests: do several harts see each other's memory accesses only in orders that RVWMO allows?
 * Spec: Unprivileged ISA 20240411, chapters 14 (A), 17 (RVWMO) and appendix A; fence.i: chapter 6
 * (Zifencei).
 *
 * A test is a few instructions for each of two to four harts on words x[i], y[i]..., run for every
 * i of a batch without waiting in between; then hart 0 counts the outcomes. An outcome that the
 * model forbids ends the run with "FAIL". The tests whose names end in -plain forbid nothing: how
 * often they show weak outcomes tells how sharp the others are.
 *
 * Runs on any `virt` machine from reset, in M-mode, with four harts or more. The console says how
 * many rounds to run: a decimal number and a newline. */
#include "../lib/guest.h"

#define BATCH     2000
#define MAX_HARTS 4
#define LINE      64 /* words that are to race lie in lines of their own */

typedef uint64_t word;

struct cell {
    volatile word v;
    char pad[LINE - sizeof(word)];
};

/** What the harts share. */
static struct cell x[BATCH], y[BATCH];
static word out[MAX_HARTS][BATCH][2];
static struct cell arrived, generation, counter, lock, in_lock;
static volatile unsigned harts;

#define PAUSE()              __asm__ volatile(".word 0x0100000f") /* Zihintpause */
#define FENCE(before, after) __asm__ volatile("fence " #before "," #after ::: "memory")

static inline word load(volatile word *p)
{
    word v;

    __asm__ volatile("ld %0, 0(%1)" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline void store(volatile word *p, word v)
{
    __asm__ volatile("sd %1, 0(%0)" ::"r"(p), "r"(v) : "memory");
}

static inline word
load_acquire(volatile word *p) /* an AMO that changes nothing: there is no other load.aq */
{
    word v;

    __asm__ volatile("amoor.d.aq %0, zero, (%1)" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline void store_release(volatile word *p, word v)
{
    __asm__ volatile("amoswap.d.rl zero, %1, (%0)" ::"r"(p), "r"(v) : "memory");
}

static inline word swap_both(volatile word *p, word v)
{
    word old;

    __asm__ volatile("amoswap.d.aqrl %0, %2, (%1)" : "=r"(old) : "r"(p), "r"(v) : "memory");
    return old;
}

static inline word add(volatile word *p, word v)
{
    word old;

    __asm__ volatile("amoadd.d %0, %2, (%1)" : "=r"(old) : "r"(p), "r"(v) : "memory");
    return old;
}

/** All harts of this test meet. */
static void barrier(void)
{
    word g = load(&generation.v);

    FENCE(rw, rw);
    if (add(&arrived.v, 1) == harts - 1) {
        store(&arrived.v, 0);
        FENCE(rw, rw);
        add(&generation.v, 1);
    } else {
        while (load(&generation.v) == g)
            PAUSE();
    }
    FENCE(rw, rw);
}

static struct cell progress[MAX_HARTS];

/** Wait, but not long, until the others have come to turn @i: so that harts that do run at the same
 * time also do the same turn at the same time, and one whose thread is not running holds nobody up.
 * Then a little time that differs from hart to hart and from turn to turn. */
static inline void meet(unsigned hart, unsigned i, unsigned round)
{
    unsigned patience = 300;

    store(&progress[hart].v, i + 1);
    for (unsigned h = 0; h < harts; h++) {
        while (load(&progress[h].v) < i + 1 && patience)
            patience--;
    }
    for (volatile unsigned n = (hart * 7 + i * 13 + round) % 5; n; n--)
        ;
}

/* --- Bodies: hart's part of turn i --- */

static void mp_plain(unsigned h, unsigned i)
{
    if (h == 0) {
        store(&x[i].v, 1);
        store(&y[i].v, 1);
    } else {
        out[1][i][0] = load(&y[i].v);
        out[1][i][1] = load(&x[i].v);
    }
}

static void mp_fences(unsigned h, unsigned i)
{
    if (h == 0) {
        store(&x[i].v, 1);
        FENCE(w, w);
        store(&y[i].v, 1);
    } else {
        out[1][i][0] = load(&y[i].v);
        FENCE(r, r);
        out[1][i][1] = load(&x[i].v);
    }
}

static void mp_release_acquire(unsigned h, unsigned i)
{
    if (h == 0) {
        store(&x[i].v, 1);
        store_release(&y[i].v, 1);
    } else {
        out[1][i][0] = load_acquire(&y[i].v);
        out[1][i][1] = load(&x[i].v);
    }
}

/** The second load's address depends on the first one's value (rule 9). */
static void mp_address(unsigned h, unsigned i)
{
    if (h == 0) {
        store(&x[i].v, 1);
        FENCE(w, w);
        store(&y[i].v, 1);
    } else {
        word v = load(&y[i].v);
        word zero;

        __asm__ volatile("xor %0, %1, %1" : "=r"(zero) : "r"(v));
        out[1][i][0] = v;
        out[1][i][1] = load((volatile word *)((uintptr_t)&x[i].v + zero));
    }
}

static bool mp_forbidden(unsigned i)
{
    return out[1][i][0] == 1 && out[1][i][1] == 0;
}

static void sb_plain(unsigned h, unsigned i)
{
    store(h ? &y[i].v : &x[i].v, 1);
    out[h][i][0] = load(h ? &x[i].v : &y[i].v);
}

static void sb_fences(unsigned h, unsigned i)
{
    store(h ? &y[i].v : &x[i].v, 1);
    FENCE(rw, rw);
    out[h][i][0] = load(h ? &x[i].v : &y[i].v);
}

static void sb_amos(unsigned h, unsigned i)
{
    (void)swap_both(h ? &y[i].v : &x[i].v, 1);
    out[h][i][0] = swap_both(h ? &x[i].v : &y[i].v, 1);
}

/** A load that is a release, too, comes after the store (rule 6). */
static void sb_load_reserved(unsigned h, unsigned i)
{
    store(h ? &y[i].v : &x[i].v, 1);
    __asm__ volatile("lr.d.aqrl %0, (%1)"
                     : "=r"(out[h][i][0])
                     : "r"(h ? &x[i].v : &y[i].v)
                     : "memory");
}

static bool sb_forbidden(unsigned i)
{
    return out[0][i][0] == 0 && out[1][i][0] == 0;
}

static void lb_fences(unsigned h, unsigned i)
{
    out[h][i][0] = load(h ? &y[i].v : &x[i].v);
    FENCE(rw, rw);
    store(h ? &x[i].v : &y[i].v, 1);
}

/** The store's value depends on the load (rule 10). */
static void lb_data(unsigned h, unsigned i)
{
    word v = load(h ? &y[i].v : &x[i].v);
    word one;

    __asm__ volatile("xor %0, %1, %1\n\taddi %0, %0, 1" : "=&r"(one) : "r"(v));
    out[h][i][0] = v;
    store(h ? &x[i].v : &y[i].v, one);
}

static bool lb_forbidden(unsigned i)
{
    return out[0][i][0] == 1 && out[1][i][0] == 1;
}

/** Coherence: loads of one word do not go back in time. */
static void corr(unsigned h, unsigned i)
{
    if (h == 0) {
        store(&x[i].v, 1);
        store(&x[i].v, 2);
    } else {
        out[h][i][0] = load(&x[i].v);
        out[h][i][1] = load(&x[i].v);
    }
}

static bool corr_forbidden(unsigned i)
{
    for (unsigned h = 1; h < harts; h++) {
        if (out[h][i][0] > out[h][i][1])
            return true;
    }
    return false;
}

static void two_plus_two_w(unsigned h, unsigned i)
{
    store(h ? &y[i].v : &x[i].v, 1);
    FENCE(w, w);
    store(h ? &x[i].v : &y[i].v, 2);
}

static bool two_plus_two_w_forbidden(unsigned i)
{
    return x[i].v == 1 && y[i].v == 1;
}

/** Write-to-read causality, three harts. */
static void wrc(unsigned h, unsigned i)
{
    if (h == 0) {
        store(&x[i].v, 1);
    } else if (h == 1) {
        out[1][i][0] = load(&x[i].v);
        FENCE(rw, rw);
        store(&y[i].v, 1);
    } else {
        out[2][i][0] = load(&y[i].v);
        FENCE(r, r);
        out[2][i][1] = load(&x[i].v);
    }
}

static bool wrc_forbidden(unsigned i)
{
    return out[1][i][0] == 1 && out[2][i][0] == 1 && out[2][i][1] == 0;
}

/** Independent reads of independent writes: stores become visible to all others at once. */
static void iriw(unsigned h, unsigned i)
{
    if (h < 2) {
        store(h ? &y[i].v : &x[i].v, 1);
    } else {
        out[h][i][0] = load(h == 2 ? &x[i].v : &y[i].v);
        FENCE(r, r);
        out[h][i][1] = load(h == 2 ? &y[i].v : &x[i].v);
    }
}

static bool iriw_forbidden(unsigned i)
{
    return out[2][i][0] == 1 && out[2][i][1] == 0 && out[3][i][0] == 1 && out[3][i][1] == 0;
}

static void amo_count(unsigned h, unsigned i)
{
    (void)h;
    (void)i;
    (void)add(&counter.v, 1);
}

static void lrsc_count(unsigned h, unsigned i)
{
    word v;
    word failed;

    (void)h;
    (void)i;
    __asm__ volatile("1: lr.d %0, (%2)\n\t"
                     "addi %0, %0, 1\n\t"
                     "sc.d %1, %0, (%2)\n\t"
                     "bnez %1, 1b"
                     : "=&r"(v), "=&r"(failed)
                     : "r"(&counter.v)
                     : "memory");
}

static bool count_forbidden(unsigned i)
{
    return i == 0 && counter.v != (word)harts * BATCH;
}

/** A lock taken by LR.aq/SC, given back by a release; the counter is added to without atomics. */
static void lrsc_lock(unsigned h, unsigned i)
{
    word t;

    (void)i;
    __asm__ volatile("1: lr.d.aq %0, (%1)\n\t"
                     "bnez %0, 1b\n\t"
                     "sc.d %0, %2, (%1)\n\t"
                     "bnez %0, 1b"
                     : "=&r"(t)
                     : "r"(&lock.v), "r"(1UL)
                     : "memory");
    if (in_lock.v)
        out[h][0][1] = 1; /* somebody else is in */
    in_lock.v = 1;
    store(&counter.v, load(&counter.v) + 1);
    in_lock.v = 0;
    store_release(&lock.v, 0);
}

static bool lock_forbidden(unsigned i)
{
    for (unsigned h = 0; i == 0 && h < harts; h++) {
        if (out[h][0][1])
            return true;
    }
    return count_forbidden(i);
}

/** A store of another hart's that went by between LR and SC makes the SC fail, if it changed the
 * value. */
static void lrsc_broken(unsigned h, unsigned i)
{
    word v;
    word failed;

    if (h == 0) {
        store(&x[i].v, 1);
        FENCE(w, w);
        store(&y[i].v, 1);
        return;
    }
    __asm__ volatile("lr.d %0, (%1)" : "=r"(v) : "r"(&x[i].v) : "memory");
    while (!load(&y[i].v)) /* until the other has stored to x: after or before the LR */
        ;
    __asm__ volatile("sc.d %0, %1, (%2)" : "=&r"(failed) : "r"(2UL), "r"(&x[i].v) : "memory");
    out[1][i][0] = v;
    out[1][i][1] = failed;
}

static bool lrsc_broken_forbidden(unsigned i)
{
    return out[1][i][0] == 0 &&
           out[1][i][1] == 0; /* it read 0, so the store came between, and yet it went through */
}

static volatile unsigned salt; /* differs from round to round */

/* Code that one hart writes and the other executes: fence.i makes it see what a flag says is there.
 */
static uint32_t code[BATCH][LINE / 4] __attribute__((aligned(LINE)));

static uint32_t li_a0(unsigned n) /* addi a0, zero, n */
{
    return 0x00000513 | n << 20;
}

static void modify_code(unsigned h, unsigned i)
{
    unsigned n = (salt + i) % 2000;

    if (h == 0) {
        *(volatile uint32_t *)&code[i][0] = li_a0(n + 1);
        FENCE(w, w);
        store(&y[i].v, 1);
    } else {
        register word a0 __asm__("a0") = 0;

        while (!load(&y[i].v))
            ;
        FENCE(r, r);
        __asm__ volatile("fence.i\n\tjalr ra, 0(%1)"
                         : "=r"(a0)
                         : "r"(&code[i][0])
                         : "ra", "memory");
        out[1][i][0] = a0;
        out[1][i][1] = n + 1;
    }
}

static bool modify_forbidden(unsigned i)
{
    return out[1][i][0] != out[1][i][1];
}

static const struct test {
    const char *name;
    unsigned harts;
    void (*body)(unsigned hart, unsigned i);
    bool (*forbidden)(unsigned i); /* turn i's outcome must not be */
    bool plain;                    /* it may, and is only counted */
} tests[] = {
    {"MP-plain",           2, mp_plain,           mp_forbidden,             true },
    {"MP+fences",          2, mp_fences,          mp_forbidden,             false},
    {"MP+release+acquire", 2, mp_release_acquire, mp_forbidden,             false},
    {"MP+fence+address",   2, mp_address,         mp_forbidden,             false},
    {"SB-plain",           2, sb_plain,           sb_forbidden,             true },
    {"SB+fences",          2, sb_fences,          sb_forbidden,             false},
    {"SB+amos",            2, sb_amos,            sb_forbidden,             false},
    {"SB+lr.aqrl",         2, sb_load_reserved,   sb_forbidden,             false},
    {"LB+fences",          2, lb_fences,          lb_forbidden,             false},
    {"LB+data",            2, lb_data,            lb_forbidden,             false},
    {"CoRR",               4, corr,               corr_forbidden,           false},
    {"2+2W+fences",        2, two_plus_two_w,     two_plus_two_w_forbidden, false},
    {"WRC+fences",         3, wrc,                wrc_forbidden,            false},
    {"IRIW+fences",        4, iriw,               iriw_forbidden,           false},
    {"AMO-count",          4, amo_count,          count_forbidden,          false},
    {"LRSC-count",         4, lrsc_count,         count_forbidden,          false},
    {"LRSC-lock",          4, lrsc_lock,          lock_forbidden,           false},
    {"LRSC-broken",        2, lrsc_broken,        lrsc_broken_forbidden,    false},
    {"modify-code",        2, modify_code,        modify_forbidden,         false},
};

static void prepare(unsigned round)
{
    for (unsigned i = 0; i < BATCH; i++) {
        x[i].v = y[i].v = 0;
        for (unsigned h = 0; h < MAX_HARTS; h++)
            out[h][i][0] = out[h][i][1] = 0;
        code[i][1] = 0x00008067; /* ret */
    }
    for (unsigned h = 0; h < MAX_HARTS; h++)
        progress[h].v = 0;
    counter.v = lock.v = in_lock.v = 0;
    salt = round * 31;
}

/** Rounds of one test; on all harts. Hart 0 returns how many outcomes were those that are looked
 * for. */
static word run(const struct test *t, unsigned hart, unsigned rounds)
{
    word seen = 0;

    for (unsigned round = 0; round < rounds; round++) {
        if (hart == 0)
            prepare(round);
        barrier();
        for (unsigned i = 0; i < BATCH && hart < t->harts; i++) {
            meet(hart, i, round);
            t->body(hart, i);
        }
        barrier();
        for (unsigned i = 0; hart == 0 && i < BATCH; i++)
            seen += t->forbidden(i);
    }
    return seen;
}

static void put_decimal(word v)
{
    char digits[21] = {0};
    int i = 20;

    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    guest_puts(digits + i);
}

static unsigned read_number(void)
{
    volatile uint8_t *uart = (volatile uint8_t *)UART_ADDR;
    unsigned n = 0;

    for (;;) {
        while (!(uart[5] & 1))
            ;
        uint8_t c = uart[0];
        if (c < '0' || c > '9')
            return n;
        n = n * 10 + c - '0';
    }
}

static volatile unsigned rounds;
static volatile word ready;
static volatile word stage; /* 2n + 1: test n runs; 2n + 2: it has */

void litmus_main(unsigned hart);

void litmus_main(unsigned hart)
{
    if (hart >= MAX_HARTS)
        return;
    if (hart == 0) {
        harts = MAX_HARTS;
        rounds = read_number();
        FENCE(rw, rw);
        ready = 1;
    }
    while (!ready)
        PAUSE();
    FENCE(rw, rw);
    for (unsigned n = 0; n < sizeof(tests) / sizeof(tests[0]); n++) {
        const struct test *t = &tests[n];

        barrier();
        if (hart == 0) {
            harts = t->harts;
            FENCE(rw, rw);
            stage = 2 * n + 1;
        }
        while (stage < 2 * n + 1) /* who comes late must not wait for what is over */
            PAUSE();
        FENCE(rw, rw);
        word seen = hart < t->harts ? run(t, hart, rounds) : 0;
        if (hart == 0) {
            guest_puts(t->plain ? "seen " : seen ? "FAIL " : "ok ");
            guest_puts(t->name);
            guest_puts(" ");
            put_decimal(seen);
            guest_puts(" of ");
            put_decimal((word)rounds * BATCH);
            guest_puts("\n");
            harts = MAX_HARTS;
            FENCE(rw, rw);
            stage = 2 * n + 2;
        }
        while (stage < 2 * n + 2)
            PAUSE();
        FENCE(rw, rw);
    }
    if (hart == 0) {
        guest_puts("end\n");
        *(volatile uint32_t *)POWER_ADDR = 0x5555;
    }
}
