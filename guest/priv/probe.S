/* See probe.h. A handler touches no memory until mstatus.MPRV is off: it hands cause, tval, epc and
 * status on in t0..t3, scause in t5, and jumps to where mscratch says. */
.option norvc
.text
.globl probe_init, probe_load, probe_store, probe_run

.balign 4
machine_trap:
    csrr    t0, mcause
    csrr    t1, mtval
    csrr    t2, mepc
    csrr    t3, mstatus
    csrr    t4, mscratch
    jr      t4

.balign 4
supervisor_trap:
    csrr    t5, scause
    ecall

probe_init:
    la      t0, machine_trap
    csrw    mtvec, t0
    la      t0, supervisor_trap
    csrw    stvec, t0
    ret

.macro store_result
    csrw    mie, zero
    csrw    mstatus, zero
    sd      t0, 0(a2)
    sd      t1, 8(a2)
    sd      t2, 16(a2)
    sd      t3, 24(a2)
    sd      t5, 32(a2)
    sd      a5, 40(a2)
.endm

probe_load:
    la      a7, 1f
    csrw    mscratch, a7
    li      t0, -1
    li      t2, 0
    li      t3, 0
    li      t5, 0
    li      a5, 0
    csrw    mstatus, a1
    ld      t1, 0(a0)
1:  store_result
    ret

probe_store:
    la      a7, 1f
    csrw    mscratch, a7
    li      t0, -1
    li      t1, 0
    li      t2, 0
    li      t3, 0
    li      t5, 0
    li      a5, 0
    csrw    mstatus, a1
    sd      a3, 0(a0)
1:  store_result
    ret

probe_run:
    la      a7, 1f
    csrw    mscratch, a7
    csrw    mepc, a0
    li      t5, 0
    mv      a5, a3
    mv      a6, a3
    csrw    mstatus, a1
    mret
1:  store_result
    ret
