/* Numbers and bits of control and status registers, named as in the specifications.
 * Spec: Privileged Architecture 1.13, ch. 2, 3, 12; Sstc, Sscofpmf, Smstateen, Zkr, Zicbom, Svadu.
 */
#ifndef CPU_GUEST_RISCV_CSR_BITS_H
#define CPU_GUEST_RISCV_CSR_BITS_H

#include "base/bits.h"

enum {
    CSR_FFLAGS = 0x001,
    CSR_FRM = 0x002,
    CSR_FCSR = 0x003,
    CSR_VSTART = 0x008,
    CSR_VXSAT = 0x009,
    CSR_VXRM = 0x00a,
    CSR_VCSR = 0x00f,
    CSR_SEED = 0x015,
    CSR_SSTATUS = 0x100,
    CSR_SIE = 0x104,
    CSR_STVEC = 0x105,
    CSR_SCOUNTEREN = 0x106,
    CSR_SENVCFG = 0x10a,
    CSR_SSTATEEN0 = 0x10c,
    CSR_SSCRATCH = 0x140,
    CSR_SEPC = 0x141,
    CSR_SCAUSE = 0x142,
    CSR_STVAL = 0x143,
    CSR_SIP = 0x144,
    CSR_STIMECMP = 0x14d,
    CSR_SATP = 0x180,
    CSR_MSTATUS = 0x300,
    CSR_MISA = 0x301,
    CSR_MEDELEG = 0x302,
    CSR_MIDELEG = 0x303,
    CSR_MIE = 0x304,
    CSR_MTVEC = 0x305,
    CSR_MCOUNTEREN = 0x306,
    CSR_MENVCFG = 0x30a,
    CSR_MSTATEEN0 = 0x30c,
    CSR_MCOUNTINHIBIT = 0x320,
    CSR_MHPMEVENT3 = 0x323,
    CSR_MSCRATCH = 0x340,
    CSR_MEPC = 0x341,
    CSR_MCAUSE = 0x342,
    CSR_MTVAL = 0x343,
    CSR_MIP = 0x344,
    CSR_PMPCFG0 = 0x3a0,
    CSR_PMPCFG2 = 0x3a2,
    CSR_PMPADDR0 = 0x3b0,
    CSR_MSECCFG = 0x747,
    CSR_MCYCLE = 0xb00,
    CSR_MINSTRET = 0xb02,
    CSR_MHPMCOUNTER3 = 0xb03,
    CSR_CYCLE = 0xc00,
    CSR_TIME = 0xc01,
    CSR_INSTRET = 0xc02,
    CSR_HPMCOUNTER3 = 0xc03,
    CSR_VL = 0xc20,
    CSR_VTYPE = 0xc21,
    CSR_VLENB = 0xc22,
    CSR_SCOUNTOVF = 0xda0,
    CSR_MVENDORID = 0xf11,
    CSR_MHARTID = 0xf14,
};

#define MSTATUS_SIE       BIT(1)
#define MSTATUS_MIE       BIT(3)
#define MSTATUS_SPIE      BIT(5)
#define MSTATUS_MPIE      BIT(7)
#define MSTATUS_SPP       BIT(8)
#define MSTATUS_VS        (3ULL << 9)
#define MSTATUS_MPP_SHIFT 11
#define MSTATUS_MPP       (3ULL << MSTATUS_MPP_SHIFT)
#define MSTATUS_FS        (3ULL << 13)
#define MSTATUS_MPRV      BIT(17)
#define MSTATUS_SUM       BIT(18)
#define MSTATUS_MXR       BIT(19)
#define MSTATUS_TVM       BIT(20)
#define MSTATUS_TW        BIT(21)
#define MSTATUS_TSR       BIT(22)
#define MSTATUS_UXL_64    (2ULL << 32)
#define MSTATUS_SXL_64    (2ULL << 34)
#define MSTATUS_SD        BIT(63)

/** The bits of sstatus that can be written. */
#define RV_SSTATUS_WRITABLE \
    (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_VS | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR)

#define VTYPE_VILL BIT(63)

#define MIP_SSIP   BIT(RV_IRQ_SSI)
#define MIP_MSIP   BIT(RV_IRQ_MSI)
#define MIP_STIP   BIT(RV_IRQ_STI)
#define MIP_MTIP   BIT(RV_IRQ_MTI)
#define MIP_SEIP   BIT(RV_IRQ_SEI)
#define MIP_MEIP   BIT(RV_IRQ_MEI)
#define MIP_LCOFIP BIT(RV_IRQ_LCOF)
#define MIP_S_ALL  (MIP_SSIP | MIP_STIP | MIP_SEIP | MIP_LCOFIP)
#define MIP_ALL    (MIP_S_ALL | MIP_MSIP | MIP_MTIP | MIP_MEIP)

#define ENVCFG_FIOM       BIT(0)
#define ENVCFG_CBIE_SHIFT 4
#define ENVCFG_CBIE       (3ULL << ENVCFG_CBIE_SHIFT)
#define ENVCFG_CBCFE      BIT(6)
#define ENVCFG_CBZE       BIT(7)
#define MENVCFG_ADUE      BIT(61)
#define MENVCFG_PBMTE     BIT(62)
#define MENVCFG_STCE      BIT(63)

#define MSECCFG_USEED BIT(8)
#define MSECCFG_SSEED BIT(9)

#define STATEEN_ENVCFG BIT(62)
#define STATEEN_SE     BIT(63)

#define COUNTEREN_TM BIT(1)

#define MHPMEVENT_OF   BIT(63)
#define MHPMEVENT_MINH BIT(62)
#define MHPMEVENT_SINH BIT(61)
#define MHPMEVENT_UINH BIT(60)

#define SATP_MODE_SHIFT 60
#define SATP_BARE       0
#define SATP_SV39       8
#define SATP_SV48       9
#define SATP_SV57       10
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK  0xffffULL
#define SATP_PPN_MASK   MASK(44)

#define PMP_R        BIT(0)
#define PMP_W        BIT(1)
#define PMP_X        BIT(2)
#define PMP_A_SHIFT  3
#define PMP_A        (3 << PMP_A_SHIFT)
#define PMP_L        BIT(7)
#define PMP_OFF      0
#define PMP_TOR      1
#define PMP_NA4      2
#define PMP_NAPOT    3
#define PMPADDR_MASK MASK(54)

#define CAUSE_INTERRUPT BIT(63)

#endif
