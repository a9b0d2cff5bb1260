/* What an engine is given of RISC-V: the table of calls, and what the device tree says of the hart.
 * Any thread. Spec: Unprivileged ISA 20240411, chapter 36 (naming conventions). */
#include "cpu/guest/riscv/regs_internal.h"
#include "cpu/guest/riscv/vec_crypto.h"
#include "cpu/guest/riscv/vec_kernels.h"

#include <stdio.h>

const struct cpu_ops rv_cpu_ops = {
    .name = "riscv64",
    .state_size = sizeof(struct rv_hart),
    .decode = rv_decode,
    .interp = rv_interp,
    .translate = rv_translate,
    .translate_address = rv_translate_address,
    .access_fault = rv_access_fault,
    .misaligned = rv_misaligned,
    .take_exception = rv_take_exception,
    .take_interrupt = rv_take_interrupt,
    .wakes = rv_wakes,
    .next_timer_ns = rv_next_timer_ns,
    .disassemble = rv_disassemble,
    .diff = rv_diff,
    .fence = rv_fence,
    .reset = rv_reset,
    .get_reg = rv_get_reg,
    .set_reg = rv_set_reg,
    .registers = rv_registers,
    .save = rv_save,
    .load = rv_load,
};

void rv_hart_init(struct rv_hart *h, bool builtin_sbi, uint64_t reset_pc, uint64_t timebase_hz)
{
    if (!h->vec.vlenb)
        h->vec.vlenb = RV_VLEN_DEFAULT / 8;
    h->vec.kernels = rv_vk_best();
    h->vec.crypto = rv_vc_best();
    h->builtin_sbi = builtin_sbi;
    h->reset_pc = reset_pc;
    h->timebase_hz = timebase_hz;
    h->reservation = RV_NO_RESERVATION;
    rv_reset(&h->cpu);
}

/** In the order of the naming conventions: category, then alphabet. */
static const struct {
    const char *name;
    enum rv_profile profile; /* the first that has it */
} extensions[] = {
    {"zicbom",      RV_PROFILE_RVA22},
    {"zicbop",      RV_PROFILE_RVA22},
    {"zicboz",      RV_PROFILE_RVA22},
    {"zicntr",      RV_PROFILE_RVA22},
    {"zicond",      RV_PROFILE_RVA23},
    {"zicsr",       RV_PROFILE_RVA22},
    {"zifencei",    RV_PROFILE_RVA22},
    {"zihintntl",   RV_PROFILE_RVA23},
    {"zihintpause", RV_PROFILE_RVA22},
    {"zihpm",       RV_PROFILE_RVA22},
    {"zimop",       RV_PROFILE_RVA23},
    {"zabha",       RV_PROFILE_MAX  },
    {"zacas",       RV_PROFILE_MAX  },
    {"zawrs",       RV_PROFILE_RVA23},
    {"zfa",         RV_PROFILE_RVA23},
    {"zfh",         RV_PROFILE_RVA22},
    {"zfhmin",      RV_PROFILE_RVA22},
    {"zca",         RV_PROFILE_RVA22},
    {"zcb",         RV_PROFILE_RVA23},
    {"zcd",         RV_PROFILE_RVA22},
    {"zcmop",       RV_PROFILE_RVA23},
    {"zba",         RV_PROFILE_RVA22},
    {"zbb",         RV_PROFILE_RVA22},
    {"zbc",         RV_PROFILE_MAX  },
    {"zbs",         RV_PROFILE_RVA22},
    {"zkr",         RV_PROFILE_RVA22},
    {"zvbb",        RV_PROFILE_RVA23},
    {"zvbc",        RV_PROFILE_MAX  },
    {"zve32f",      RV_PROFILE_RVA23},
    {"zve32x",      RV_PROFILE_RVA23},
    {"zve64d",      RV_PROFILE_RVA23},
    {"zve64f",      RV_PROFILE_RVA23},
    {"zve64x",      RV_PROFILE_RVA23},
    {"zvfh",        RV_PROFILE_RVA23},
    {"zvfhmin",     RV_PROFILE_RVA23},
    {"zvkb",        RV_PROFILE_RVA23},
    {"zvkg",        RV_PROFILE_MAX  },
    {"zvkned",      RV_PROFILE_MAX  },
    {"zvknha",      RV_PROFILE_MAX  },
    {"zvknhb",      RV_PROFILE_MAX  },
    {"zvksed",      RV_PROFILE_MAX  },
    {"zvksh",       RV_PROFILE_MAX  },
    {"smstateen",   RV_PROFILE_RVA22},
    {"sscofpmf",    RV_PROFILE_RVA22},
    {"sstc",        RV_PROFILE_RVA22},
    {"svadu",       RV_PROFILE_RVA22},
    {"svinval",     RV_PROFILE_RVA22},
    {"svnapot",     RV_PROFILE_RVA22},
    {"svpbmt",      RV_PROFILE_RVA22},
    {"svvptc",      RV_PROFILE_RVA22},
};

void rv_isa_string(enum rv_profile profile, char *buf, size_t size)
{
    size_t used =
        (size_t)snprintf(buf, size, "rv64imafdc%s", profile <= RV_PROFILE_RVA23 ? "v" : "");

    for (size_t n = 0; n < ARRAY_SIZE(extensions); n++)
        if (extensions[n].profile >= profile && used < size)
            used += (size_t)snprintf(buf + used, size - used, "_%s", extensions[n].name);
    assert(used < size);
}

const char *rv_mmu_type(void)
{
    return "riscv,sv57";
}
