#!/usr/bin/env python3
"""Write x86-64 stubs for the functions that static libraries use of shared ones, so that a shared library is loaded by the first call into
it: lazy.py OUT.S 'CC WORDS' LIBRARY,... ARCHIVE...     (LIBRARY without lib and .so)

The program that the stubs are linked into before the libraries does not need those any more; src/main/lazy.c does the loading. Data of a
library cannot be had this way and is refused here."""
import re, subprocess, sys

out, cc, libraries, *archives = sys.argv[1:]


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


used = {line.split()[1] for line in run("nm", "-u", *archives).splitlines() if line.strip().startswith("U ")}
rows = []
for library in libraries.split(","):
    path = run(*cc.split(), f"-print-file-name=lib{library}.so").strip()
    soname = re.search(r"SONAME\s+(\S+)", run("objdump", "-p", path))
    if not soname:
        sys.exit(f"lazy.py: {path} is not a shared library")
    for line in run("nm", "-D", "--defined-only", path).splitlines():
        _, kind, name = line.split()
        name = name.split("@")[0]
        if name in used:
            if kind not in "TWi":
                sys.exit(f"lazy.py: '{name}' of lib{library} is not a function")
            used.remove(name)
            rows.append((soname[1], name))

with open(out, "w") as f:
    f.write("    .text\n")
    for n, (_, name) in enumerate(rows):
        # the slot leads to its own second half until lazy_find() has put the function there
        f.write(f"""    .globl {name}
    .type {name}, @function
{name}:
    jmp *slot_{n}(%rip)
first_{n}:
    pushq ${n}
    jmp lazy_call
    .size {name}, . - {name}
""")
    f.write("    .data\n    .balign 8\nslots:\n")
    f.writelines(f"slot_{n}: .quad first_{n}\n" for n in range(len(rows)))
    f.write("    .globl lazy_slots, lazy_rows\n    .hidden lazy_slots, lazy_rows\nlazy_slots: .quad slots\n")
    f.write("    .section .data.rel.ro, \"aw\"\n    .balign 8\nlazy_rows:\n")
    f.writelines(f"    .quad soname_{n}, name_{n}\n" for n in range(len(rows)))
    f.write("    .section .rodata.str1.1, \"aMS\", @progbits, 1\n")
    for n, (soname, name) in enumerate(rows):
        f.write(f'soname_{n}: .string "{soname}"\nname_{n}: .string "{name}"\n')
    # All that can hold an argument is kept: six integers, al for variadic functions, eight vectors.
    f.write("    .text\n    .type lazy_call, @function\nlazy_call:\n    .cfi_startproc\n    .cfi_def_cfa_offset 24\n")
    words = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"]
    f.write("    pushq %rbp\n    .cfi_def_cfa_offset 32\n    .cfi_offset rbp, -32\n    movq %rsp, %rbp\n    .cfi_def_cfa_register rbp\n")
    f.write("    subq $192, %rsp\n    andq $-16, %rsp\n")
    f.writelines(f"    movq %{r}, {8 * i}(%rsp)\n" for i, r in enumerate(words))
    f.writelines(f"    movaps %xmm{i}, {64 + 16 * i}(%rsp)\n" for i in range(8))
    f.write("    movq 8(%rbp), %rdi\n    call lazy_find\n    movq %rax, %r11\n")
    f.writelines(f"    movaps {64 + 16 * i}(%rsp), %xmm{i}\n" for i in range(8))
    f.writelines(f"    movq {8 * i}(%rsp), %{r}\n" for i, r in enumerate(words))
    f.write("    leave\n    .cfi_def_cfa rsp, 24\n    addq $8, %rsp\n    .cfi_def_cfa_offset 16\n    jmp *%r11\n    .cfi_endproc\n")
    f.write("    .size lazy_call, . - lazy_call\n    .section .note.GNU-stack, \"\", @progbits\n")
