/* Where the guest programs begin: by multiboot, in 32-bit protected mode without paging, %ebx with the loader's information.
   And what the processor calls at exceptions and interrupts: 256 entries that come to trap() in lib.c. */
    .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002    /* Multiboot 0.6.96 §3.1: in the file's first 8 KiB */

    .globl _start
_start:
    movl $stack_end, %esp
    pushl %ebx
    call start
1:  hlt
    jmp 1b

    .macro entry number
    .align 16
    .if \number == 8 || (\number >= 10 && \number <= 14) || \number == 17 || \number == 21 || \number == 29 || \number == 30
    nop
    .else
    pushl $0                            /* these vectors come without an error code */
    .endif
    pushl $\number
    jmp common
    .endm

    .globl entries
    .align 16
entries:
    .altmacro
    .set i, 0
    .rept 256
    entry %i
    .set i, i + 1
    .endr
    .noaltmacro

common:
    pusha
    pushl %esp
    cld
    call trap
    addl $4, %esp
    popa
    addl $8, %esp
    iret

    .bss
    .align 16
    .skip 16384
stack_end:
    .section .note.GNU-stack, "", @progbits
