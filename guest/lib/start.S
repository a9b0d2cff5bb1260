/* Entry of a bare-metal guest. Bytes 8 and 16 of the image hold what its runner passes. */
.option norvc
.section .text.start, "ax"
.globl _start, guest_seed, guest_count
_start:
    j       begin
    .balign 8
guest_seed:
    .dword  1
guest_count:
    .dword  100
begin:
    csrr    t0, mhartid
    bnez    t0, park
    la      sp, stack_end
    call    guest_main
    li      t0, 0x100000 /* power off */
    li      t1, 0x5555
    sw      t1, 0(t0)
park:
    wfi
    j       park

.section .bss
    .balign 16
    .skip   16384
stack_end:
