/* Registers by number, as debuggers and saved state know them: 0-31 x, 32 pc, 33-64 f,
 * 65 + n CSR n (GDB's numbering). And the comparison of two harts.
 *
 * Threads: the hart's own, but for the register list: any. */
#include "cpu/guest/riscv/regs_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

enum { REG_PC = 32, REG_F = 33, REG_CSR = 65, CSR_COUNT = 4096, MAX_CSRS = 256 };

const char rv_x_names[32][5] = {"zero", "ra", "sp",  "gp",  "tp", "t0", "t1", "t2",
                                "s0",   "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
                                "a6",   "a7", "s2",  "s3",  "s4", "s5", "s6", "s7",
                                "s8",   "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
const char rv_f_names[32][5] = {"ft0", "ft1", "ft2",  "ft3",  "ft4", "ft5", "ft6",  "ft7",
                                "fs0", "fs1", "fa0",  "fa1",  "fa2", "fa3", "fa4",  "fa5",
                                "fa6", "fa7", "fs2",  "fs3",  "fs4", "fs5", "fs6",  "fs7",
                                "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11"};

static struct vcpu_reg reg_list[REG_CSR + MAX_CSRS];
static char csr_names[MAX_CSRS][16];
static size_t reg_count;
static pthread_once_t reg_once = PTHREAD_ONCE_INIT;

static void make_list(void)
{
    size_t n = 0, csrs = 0;

    for (unsigned r = 0; r < 32; r++)
        reg_list[n++] =
            (struct vcpu_reg){rv_x_names[r], "general", "org.gnu.gdb.riscv.cpu", 64, (uint16_t)r};
    reg_list[n++] = (struct vcpu_reg){"pc", "general", "org.gnu.gdb.riscv.cpu", 64, REG_PC};
    for (unsigned r = 0; r < 32; r++)
        reg_list[n++] = (struct vcpu_reg){rv_f_names[r], "float", "org.gnu.gdb.riscv.fpu", 64,
                                          (uint16_t)(REG_F + r)};
    for (unsigned csr = 0; csr < CSR_COUNT && csrs < MAX_CSRS; csr++) {
        if (!rv_csr_name(csr, csr_names[csrs], sizeof(csr_names[csrs])))
            continue;
        /* GDB wants these three among the floating-point registers. */
        bool fp = csr >= 1 && csr <= 3;

        reg_list[n++] = (struct vcpu_reg){csr_names[csrs++], fp ? "float" : "csr",
                                          fp ? "org.gnu.gdb.riscv.fpu" : "org.gnu.gdb.riscv.csr",
                                          fp ? 32 : 64, (uint16_t)(REG_CSR + csr)};
    }
    reg_count = n;
}

const struct vcpu_reg *rv_registers(struct cpu *c, size_t *ret_count)
{
    pthread_once(&reg_once, make_list);
    *ret_count = reg_count;
    return reg_list;
}

int rv_get_reg(struct cpu *c, unsigned id, uint64_t *ret)
{
    struct rv_hart *h = rv_hart_of(c);

    if (id < REG_PC)
        *ret = h->x[id];
    else if (id == REG_PC)
        *ret = c->pc;
    else if (id < REG_CSR)
        *ret = h->f[id - REG_F];
    else if (id < REG_CSR + CSR_COUNT)
        return rv_csr_peek(h, id - REG_CSR, ret);
    else
        return -ENOENT;
    return 0;
}

int rv_set_reg(struct cpu *c, unsigned id, uint64_t value)
{
    struct rv_hart *h = rv_hart_of(c);

    if (id < REG_PC)
        h->x[id] = id ? value : 0;
    else if (id == REG_PC)
        c->pc = value & ~1ULL;
    else if (id < REG_CSR)
        h->f[id - REG_F] = value;
    else if (id < REG_CSR + CSR_COUNT)
        return rv_csr_poke(h, id - REG_CSR, value);
    else
        return -ENOENT;
    return 0;
}

/** A member of struct rv_hart that two runs of the same code must agree on. */
struct compared {
    const char *name;
    size_t offset;
    unsigned size;
};
#define MEMBER(field)                                                                 \
    {                                                                                 \
#field, offsetof(struct rv_hart, field), sizeof(((struct rv_hart *)0)->field) \
    }

static const struct compared compared[] = {
    MEMBER(cpu.pc),       MEMBER(cpu.instret), MEMBER(cpu.mode),
    MEMBER(cpu.fp_flags), MEMBER(priv),        MEMBER(frm),
    MEMBER(mstatus),      MEMBER(medeleg),     MEMBER(mideleg),
    MEMBER(mie),          MEMBER(mtvec),       MEMBER(mscratch),
    MEMBER(mepc),         MEMBER(mcause),      MEMBER(mtval),
    MEMBER(mcounteren),   MEMBER(menvcfg),     MEMBER(stvec),
    MEMBER(sscratch),     MEMBER(sepc),        MEMBER(scause),
    MEMBER(stval),        MEMBER(scounteren),  MEMBER(senvcfg),
    MEMBER(vec.vl),       MEMBER(vec.vtype),   MEMBER(vec.vstart),
    MEMBER(vec.vxrm),     MEMBER(vec.vxsat),   MEMBER(satp),
    MEMBER(stimecmp),     MEMBER(reservation), MEMBER(reservation_value),
};

static uint64_t value_at(const struct rv_hart *h, const struct compared *m)
{
    uint64_t v = 0;

    memcpy(&v, (const char *)h + m->offset, m->size);
    return v;
}

static bool differ(char *buf, size_t size, const char *name, uint64_t a, uint64_t b)
{
    if (a == b)
        return false;
    snprintf(buf, size, "%s: %#" PRIx64 " and %#" PRIx64, name, a, b);
    return true;
}

/** Most pairs are equal: look at the registers and what lies behind them at once. */
static bool same(const struct rv_hart *a, const struct rv_hart *b)
{
    size_t start = offsetof(struct rv_hart, x);

    return a->cpu.pc == b->cpu.pc && a->cpu.instret == b->cpu.instret &&
           a->cpu.mode == b->cpu.mode && a->cpu.fp_flags == b->cpu.fp_flags &&
           !memcmp((const char *)a + start, (const char *)b + start, sizeof(*a) - start);
}

bool rv_diff(const struct cpu *a, const struct cpu *b, char *buf, size_t size)
{
    const struct rv_hart *ha = (const struct rv_hart *)a, *hb = (const struct rv_hart *)b;

    if (same(ha, hb))
        return false;
    for (unsigned n = 0; n < ARRAY_SIZE(compared); n++)
        if (differ(buf, size, compared[n].name, value_at(ha, &compared[n]),
                   value_at(hb, &compared[n])))
            return true;
    for (unsigned r = 0; r < 32; r++)
        if (differ(buf, size, rv_x_names[r], ha->x[r], hb->x[r]) ||
            differ(buf, size, rv_f_names[r], ha->f[r], hb->f[r]))
            return true;
    for (unsigned r = 0; r < 32 * ha->vec.vlenb / 8u; r++) {
        char name[24];

        (void)snprintf(name, sizeof(name), "v%u+%u", r * 8 / ha->vec.vlenb, r * 8 % ha->vec.vlenb);
        if (differ(buf, size, name, ha->vec.v[r], hb->vec.v[r]))
            return true;
    }
    if (ha->exception_pending &&
        hb->exception_pending) /* a replayed access does not raise it anew */
        return differ(buf, size, "exception cause", ha->exception_cause, hb->exception_cause) ||
               differ(buf, size, "exception tval", ha->exception_tval, hb->exception_tval);
    return false;
}
