/* What an engine is given of RISC-V: the table of calls, and what the device tree says of the hart.
 * Any thread. Spec: Unprivileged ISA 20240411, chapter 36 (naming conventions). */
#include "cpu/guest/riscv/regs_internal.h"

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
    .reset = rv_reset,
    .get_reg = rv_get_reg,
    .set_reg = rv_set_reg,
    .registers = rv_registers,
    .save = rv_save,
    .load = rv_load,
};

void rv_hart_init(struct rv_hart *h, bool builtin_sbi, uint64_t reset_pc, uint64_t timebase_hz)
{
    h->builtin_sbi = builtin_sbi;
    h->reset_pc = reset_pc;
    h->timebase_hz = timebase_hz;
    h->reservation_va = RV_NO_RESERVATION;
    rv_reset(&h->cpu);
}

const char *rv_isa_string(void)
{
    return "rv64imafdc"
           "_zicbom_zicbop_zicboz_zicntr_zicond_zicsr_zifencei_zihintntl_zihintpause_zihpm_zimop"
           "_zabha_zacas_zawrs"
           "_zfa_zfh_zfhmin"
           "_zca_zcb_zcd_zcmop"
           "_zba_zbb_zbc_zbs"
           "_zkr"
           "_smstateen_sscofpmf_sstc_svadu_svinval_svnapot_svpbmt_svvptc";
}

const char *rv_mmu_type(void)
{
    return "riscv,sv57";
}
