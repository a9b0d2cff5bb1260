/* Entry of the litmus guest: every hart runs litmus_main(hart) on a stack of its own, in M-mode. */
.option norvc
.section .text.start, "ax"
.globl _start
_start:
    csrr    a0, mhartid
    la      sp, stacks
    addi    t0, a0, 1
    slli    t0, t0, 13
    add     sp, sp, t0
    call    litmus_main
park:
    wfi
    j       park

.section .bss
    .balign 16
stacks:
    .skip   16 * 8192
