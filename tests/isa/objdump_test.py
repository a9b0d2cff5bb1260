#!/usr/bin/env python3
"""Compare our disassembly of random instructions with binutils'. TAP.

    objdump_test.py ISA_TEXT OBJDUMP AS

32-bit instructions are compared with `-M no-aliases`. A compressed one is compared by what it
expands to: objdump writes both forms alike when aliases are on."""
import os, re, subprocess, sys, tempfile

isa_text, objdump, assembler = sys.argv[1:]
COUNT = 20000
# Not known to binutils 2.40, or written in other words by newer ones.
UNKNOWN = {"zfa", "zicond", "zacas", "zabha", "zimop", "zcmop", "zcb", "zihintntl", "zvbb", "zvbc",
           "zvkned", "zvknhb", "zvksed", "zvksh", "zvkg"}


ARCH = "rv64imafdc_zicsr_zifencei_zba_zbb_zbc_zbs_zfh_zicbom_zicboz_zicbop_zawrs_zihintpause_svinval_v"


def disassemble(words, options):
    """objdump's text for each of @words (hex digits), 4 bytes apart."""
    with tempfile.TemporaryDirectory() as d:
        source, program = os.path.join(d, "a.s"), os.path.join(d, "a.o")
        with open(source, "w") as f:
            for w in words:  # a compressed one is followed by C.NOP
                f.write(f".insn {len(w) // 2}, 0x{w}\n" + (".insn 2, 1\n" if len(w) == 4 else ""))
        subprocess.run([assembler, "-march=" + ARCH, "-o", program, source], check=True)
        out = subprocess.run([objdump, "-d", *(["-M", options] if options else []), program],
                             capture_output=True, text=True, check=True).stdout
    at = {}
    for line in out.splitlines():
        m = re.match(r"\s*([0-9a-f]+):\t[0-9a-f ]+\t(.*)", line)
        if m:
            at[int(m[1], 16)] = m[2]
    return at


def normal(text, address):
    """One spelling for what is the same: spaces, comments, targets relative to the instruction."""
    text = re.sub(r"\s*[#<].*", "", text).strip()
    text = re.sub(r"\s+", " ", text)
    m = re.match(r"(c\.)?(beq|bne|blt|bge|bltu|bgeu|jal|j|beqz|bnez|bltz|bgez|blez|bgtz|bgt|ble|bgtu|bleu)\b(.*?)(0x)?([0-9a-f]+)$", text)
    if m:
        target = (int(m[5], 16) - address) & 0xffffffffffffffff
        text = f"{m[2]}{m[3]}{target:#x}"
    text = re.sub(r"^add (\w+),(\w+),0$", r"mv \1,\2", text)
    return re.sub(r"^mv (\w+),", r"add \1,zero,", text)


rows = [line.split("\t", 3) for line in
        subprocess.run([isa_text, str(COUNT), "7"], capture_output=True, text=True, check=True).stdout.splitlines()]
print("1..2")

wide = [r for r in rows if len(r[0]) == 8 and r[2] not in UNKNOWN]
theirs = disassemble([r[0] for r in wide], "no-aliases")
bad = unknown = 0
for n, (w, _, ext, text) in enumerate(wide):
    a, b = normal(text, 0), normal(theirs.get(4 * n, ""), 4 * n)
    if re.match(r"csr\w+ \w+,0x", a):  # a CSR that this hart does not have: only objdump names it
        b = re.sub(r"^(csr\w+ \w+),\w+", r"\1," + a.split(",")[1], b)
    if b.startswith(".4byte"):  # reserved fields that we ignore, as the specification asks
        unknown += 1
    elif a != b:
        bad += 1
        if bad <= 40:
            print(f"# {w}: ours '{a}', objdump '{b}'")
print(f"# {len(wide)} instructions, {unknown} unknown to objdump, {bad} differ")
print(f"{'not ' if bad or unknown > len(wide) // 20 else ''}ok 1 - as_objdump_writes_it")

narrow = [r for r in rows if len(r[0]) == 4 and r[2] not in UNKNOWN]
short, long = disassemble([r[0] for r in narrow], ""), disassemble([r[1] for r in narrow], "")
bad = 0
for n, (w, expanded, ext, text) in enumerate(narrow):
    a, b = normal(short.get(4 * n, ""), 4 * n), normal(long.get(4 * n, ""), 4 * n)
    if a != b and not a.startswith("c."):  # those are hints, which it does not expand
        bad += 1
        if bad <= 40:
            print(f"# {w}: objdump '{a}', of {expanded} '{b}', ours '{text}'")
print(f"# {len(narrow)} instructions, {bad} differ")
print(f"{'not ' if bad else ''}ok 2 - compressed_means_what_objdump_says")
