#!/usr/bin/env python3
"""Generate a decoder from instruction tables.

    decode.py ops.h rows.c decode.c TABLE.decode...

The tables' syntax is described in src/cpu/guest/riscv/formats.decode and rv64i.decode. Fails when two
rows overlap (unless one says it is `in` the other), when a row's open bits are not exactly its
format's fields, or when a name is unknown. What comes out:
  ops.h     enum rv_op and RV_OPS(X), X(UPPER, lower) for every op
  rows.c    rv_rows[], rv_formats[]: what encoder, disassembler and tests go by
  decode.c  rv_decode32(), rv_decode16(): nested switches on the bits that tell rows apart
"""
import pathlib, re, sys

MEMBERS = ["rd", "rs1", "rs2", "rs3", "imm", "extra"]
INSN_FLAGS = {"end": "INSN_END", "system": "INSN_SYSTEM", "mem": "INSN_MEMORY"}
NEEDS = {"fp": "RV_NEED_FP", "rm": "RV_NEED_RM", "cbo-inval": "RV_NEED_CBO_INVAL",
         "cbo-clean": "RV_NEED_CBO_CLEAN", "cbo-zero": "RV_NEED_CBO_ZERO", "vec": "RV_NEED_VECTOR",
         "vrm": "RV_NEED_FRM"}
# The first profile that has an extension; rva22 has those that name none.
PROFILES = {"rva23": "RV_NEED_RVA23", "max": "RV_NEED_MAX"}


class Field:
    def __init__(self, member, text):
        self.member, self.constant, self.bias, self.shift, self.signed = member, None, 0, 0, False
        self.segments = []
        if text.startswith("#"):
            self.constant = int(text[1:], 0)
            return
        m = re.fullmatch(r"(s?)([0-9:|]+)(?:<<(\d+))?(?:\+(\d+))?", text)
        if not m:
            raise ValueError(f"bad field {text}")
        self.signed, self.shift, self.bias = bool(m[1]), int(m[3] or 0), int(m[4] or 0)
        for part in m[2].split("|"):
            hi, _, lo = part.partition(":")
            self.segments.append((int(hi), int(lo or hi)))

    def bits(self):
        mask = 0
        for hi, lo in self.segments:
            mask |= ((1 << (hi - lo + 1)) - 1) << lo
        return mask

    def width(self):
        return sum(hi - lo + 1 for hi, lo in self.segments)

    def extract(self):
        """C expression of the field's value in the instruction w."""
        if self.constant is not None:
            return str(self.constant)
        parts, at = [], self.width()
        for n, (hi, lo) in enumerate(self.segments):
            size = hi - lo + 1
            at -= size
            shift = at + self.shift
            if n == 0 and self.signed:
                part = f"((int32_t)(w << {31 - hi}) >> {32 - size})"
                parts.append(f"((uint32_t){part} << {shift})" if shift else f"(uint32_t){part}")
            else:
                part = f"((w >> {lo}) & {(1 << size) - 1:#x})" if lo else f"(w & {(1 << size) - 1:#x})"
                parts.append(f"({part} << {shift})" if shift else part)
        text = " | ".join(parts)
        return f"({text}) + {self.bias}" if self.bias else text


class Format:
    def __init__(self, name, fields, ignore, syntax):
        self.name, self.fields, self.ignore, self.syntax = name, fields, ignore, syntax


class Row:
    def __init__(self, where, ext, name, bits, fmt, flags, op, section):
        self.where, self.ext, self.name, self.fmt, self.section = where, ext, name, fmt, section
        self.op = (name if op == "-" else op).replace(".", "_")
        self.size = len(bits) // 8
        self.mask = int("".join("0" if b == "." else "1" for b in bits), 2)
        self.match = int("".join("1" if b == "1" else "0" for b in bits), 2)
        self.flags, self.needs, self.parent, self.nonzero, self.children = [], [], None, [], []
        for flag in [] if flags == "-" else flags.split(","):
            if flag in INSN_FLAGS:
                self.flags.append(INSN_FLAGS[flag])
            elif flag in NEEDS:
                self.needs.append(NEEDS[flag])
            elif flag.startswith("in="):
                self.parent = flag[3:]
            elif flag.startswith("nz="):
                self.nonzero.append(flag[3:])
            else:
                raise ValueError(f"unknown flag {flag}")

    def overlaps(self, other):
        common = self.mask & other.mask
        return self.size == other.size and self.match & common == other.match & common


def fail(where, text):
    sys.exit(f"{where}: {text}")


def parse(paths):
    formats, rows = {}, []
    for path in paths:
        ext, profile = None, []
        for n, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
            where = f"{path}:{n}"
            if line.startswith("#") or not line.strip():
                continue
            try:
                if line.startswith("format "):
                    m = re.fullmatch(r'format (\S+)((?:\s+\S+=\S+)*)\s+"([^"]*)"\s*', line)
                    fields, ignore = [], 0
                    for item in m[2].split():
                        key, _, value = item.partition("=")
                        if key == "ignore":
                            ignore |= Field(key, value).bits()
                        elif key in MEMBERS:
                            fields.append(Field(key, value))
                        else:
                            raise ValueError(f"unknown member {key}")
                    formats[m[1]] = Format(m[1], fields, ignore, m[3])
                elif line.startswith("extension "):
                    _, ext, *profile = line.split()
                    profile = [PROFILES[p] for p in profile]
                else:
                    name, *rest = line.split()
                    bits = ""
                    while rest and re.fullmatch(r"[01.]+", rest[0]) and len(bits) < 32 and len(rest) > 4:
                        bits += rest.pop(0)
                    fmt, flags, op, section = rest
                    if len(bits) not in (16, 32):
                        raise ValueError(f"{len(bits)} bits")
                    rows.append(Row(where, ext, name, bits, formats[fmt], flags, op, section))
                    rows[-1].needs += profile
            except (ValueError, KeyError, TypeError) as e:
                fail(where, repr(e))
    return formats, rows


def check(rows):
    by_name = {}
    for r in rows:
        if r.name in by_name:
            fail(r.where, f"{r.name} is also at {by_name[r.name].where}")
        by_name[r.name] = r
    for r in rows:
        open_bits, seen = ((1 << 8 * r.size) - 1) & ~r.mask, r.fmt.ignore & ~r.mask
        if r.size == 4 and r.match & r.mask & 3 != 3 or r.size == 2 and r.match & 3 == 3:
            fail(r.where, "length bits")
        overlay = 0
        for f in r.fmt.fields:
            if r.mask & f.bits() and r.parent is None:
                fail(r.where, f"{f.member} covers fixed bits")
            overlay |= f.bits()
        if (overlay | seen) & ~r.mask != open_bits:
            fail(r.where, f"open bits {open_bits:#x}, fields {overlay | seen:#x}")
        for member in r.nonzero:
            if member not in [f.member for f in r.fmt.fields]:
                fail(r.where, f"no member {member}")
        if r.parent:
            if r.parent not in by_name:
                fail(r.where, f"no row {r.parent}")
            p = by_name[r.parent]
            if p.size != r.size or p.mask & ~r.mask or (r.match ^ p.match) & p.mask or p.mask == r.mask:
                fail(r.where, f"not inside {p.name}")
            p.children.append(r)

    def ancestors(r):
        while r.parent:
            r = by_name[r.parent]
            yield r.name
    for i, a in enumerate(rows):
        for b in rows[i + 1:]:
            if a.overlaps(b) and a.name not in ancestors(b) and b.name not in ancestors(a):
                fail(b.where, f"{b.name} overlaps {a.name} ({a.where})")


def leaf(r, tested, ind):
    """Test what is left to test of a row, then decode it."""
    out, pad = [], "    " * ind
    rest = r.mask & ~tested
    if rest:
        out.append(f"{pad}if ((w & {rest:#x}) == {r.match & rest:#x}) {{")
        ind += 1
    pad = "    " * ind
    for child in r.children:
        out += leaf(child, tested | r.mask, ind)
    out.append(f"{pad}ret->op = RV_OP_{r.op.upper()};")
    flags = " | ".join(r.flags)
    if flags:
        out.append(f"{pad}ret->flags = {flags};")
    if r.fmt.fields:
        out.append(f"{pad}format_{r.fmt.name}(w, ret);")
    result = " | ".join(r.needs) or "0"
    if r.nonzero:
        cond = " && ".join(f"ret->{m}" for m in r.nonzero)
        out.append(f"{pad}return {cond} ? {result} : RV_NEED_ILLEGAL;")
    else:
        out.append(f"{pad}return {result};")
    if rest:
        out.append("    " * (ind - 1) + "}")
    return out


def tree(rows, tested, ind):
    """Code that decides among @rows, all of which agree with the bits already tested."""
    pad = "    " * ind
    common = ~tested & 0xffffffff
    for r in rows:
        common &= r.mask
    if len(rows) == 1 or not common:
        out = []
        for r in rows:
            out += leaf(r, tested, ind)
        return out
    # The lowest run of at most 7 adjacent bits keeps the switches dense.
    lo = (common & -common).bit_length() - 1
    width = 0
    while width < 7 and common >> (lo + width) & 1:
        width += 1
    mask = ((1 << width) - 1) << lo
    groups = {}
    for r in rows:
        groups.setdefault((r.match & mask) >> lo, []).append(r)
    if len(groups) == 1:
        key = next(iter(groups))
        return ([f"{pad}if ((w & {mask:#x}) == {key << lo:#x}) {{"]
                + tree(rows, tested | mask, ind + 1) + [f"{pad}}}"])
    out = [f"{pad}switch ((w >> {lo}) & {mask >> lo:#x}) {{" if lo else f"{pad}switch (w & {mask:#x}) {{"]
    for key in sorted(groups):
        out.append(f"{pad}case {key:#x}:")
        body = tree(groups[key], tested | mask, ind + 1)
        out += body
        if not body[-1].startswith(pad + "    return "):
            out.append(f"{pad}    break;")
    return out + [f"{pad}}}"]


def write_ops(path, rows):
    ops = sorted({r.op for r in rows}, key=[r.op for r in rows].index)
    text = ["/* Generated by decode.py. */", "#ifndef CPU_GUEST_RISCV_OPS_GEN_H", "#define CPU_GUEST_RISCV_OPS_GEN_H",
            "", "#define RV_OPS(X) \\", "    X(ILLEGAL, illegal) \\"]
    text += [f"    X({op.upper()}, {op})" + (" \\" if op != ops[-1] else "") for op in ops]
    text += ["", "enum rv_op {", "#define RV_OP_ENUM(upper, lower) RV_OP_##upper,", "    RV_OPS(RV_OP_ENUM)",
             "#undef RV_OP_ENUM", "    RV_OP_COUNT", "};", "", "#endif", ""]
    pathlib.Path(path).write_text("\n".join(text))


def write_rows(path, formats, rows):
    text = ["/* Generated by decode.py. */", '#include "cpu/guest/riscv/rows.h"', "",
            "const struct rv_format rv_formats[] = {"]
    index = {name: n for n, name in enumerate(formats)}
    for f in formats.values():
        fields = []
        for d in f.fields:
            segs = ", ".join(f"{{{hi}, {lo}}}" for hi, lo in d.segments)
            fields.append(f"{{.member = RV_MEMBER_{d.member.upper()}, .shift = {d.shift}, .bias = {d.bias}, "
                          f".is_signed = {int(d.signed)}, .constant = {d.constant or 0}, "
                          f".segment_count = {len(d.segments)}, .segments = {{{segs or '{0, 0}'}}}}}")
        body = ", ".join(fields) or "{0}"
        text.append(f'    {{.name = "{f.name}", .syntax = "{f.syntax}", .field_count = {len(f.fields)}, '
                    f".fields = {{{body}}}}},")
    text += ["};", "", f"const unsigned rv_row_count = {len(rows)};", "const struct rv_row rv_rows[] = {"]
    for r in rows:
        needs = " | ".join(r.needs) or "0"
        flags = " | ".join(r.flags) or "0"
        text.append(f'    {{"{r.name}", "{r.ext}", "{r.section}", {r.match:#x}, {r.mask:#x}, RV_OP_{r.op.upper()}, '
                    f"{index[r.fmt.name]}, {r.size}, {flags}, {needs}}},")
    text += ["};", "", "const uint16_t rv_op_rows[RV_OP_COUNT] = {"]
    done = set()
    for n, r in sorted(enumerate(rows), key=lambda x: (-x[1].size, x[0])):
        if r.op not in done:
            done.add(r.op)
            text.append(f"    [RV_OP_{r.op.upper()}] = {n},")
    text += ["};", ""]
    pathlib.Path(path).write_text("\n".join(text))


def write_decode(path, formats, rows):
    text = ["/* Generated by decode.py. */", '#include "cpu/guest/riscv/rows.h"', ""]
    used = {r.fmt.name for r in rows}
    for f in formats.values():
        if f.fields and f.name in used:
            text += [f"static inline void format_{f.name}(uint32_t w, struct insn *ret)", "{"]
            for d in f.fields:
                ctype = {"imm": "int32_t", "extra": "uint16_t"}.get(d.member, "uint8_t")
                text.append(f"    ret->{d.member} = ({ctype})({d.extract()});")
            text += ["}", ""]
    for size in (4, 2):
        top = [r for r in rows if r.size == size and not r.parent]
        text += [f"unsigned rv_decode{8 * size}(uint32_t w, struct insn *ret)", "{"] + tree(top, 0, 1)
        text += ["    return RV_NEED_ILLEGAL;", "}", ""]
    pathlib.Path(path).write_text("\n".join(text))


def main():
    ops, rows_c, decode_c, *tables = sys.argv[1:]
    formats, rows = parse(tables)
    check(rows)
    write_ops(ops, rows)
    write_rows(rows_c, formats, rows)
    write_decode(decode_c, formats, rows)


main()
