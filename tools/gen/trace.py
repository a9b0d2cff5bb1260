#!/usr/bin/env python3
"""Write trace_<folder>.h and .c from a trace.def: trace.py OUT.h OUT.c NAME TRACE.DEF

A row declares an event:   name(type a, type b) "text with %u and %llx"
Its call is trace_name(a, b), which costs one load and one branch while the event is off. 64-bit values are printed with %ll
conversions. Lines that begin with '#' are comments."""
import re, sys

out_h, out_c, include, source = sys.argv[1:]
rows = []
for n, line in enumerate(open(source), 1):
    line = line.strip()
    if not line or line.startswith("#"):
        continue
    m = re.fullmatch(r'([a-z0-9_]+)\((.*)\)\s+("(?:[^"\\]|\\.)*")', line)
    if not m:
        sys.exit(f"{source}:{n}: not an event: {line}")
    args = [a.strip().rsplit(" ", 1) for a in m[2].split(",")] if m[2].strip() else []
    args = [(t.strip() + "*" * name.count("*"), name.lstrip("*")) for t, name in args]
    rows.append((m[1], args, m[3]))


def passed(kind, name):
    if kind == "uint64_t":
        return f"(unsigned long long){name}"
    return f"(long long){name}" if kind == "int64_t" else name


with open(out_h, "w") as f:
    guard = re.sub(r"\W", "_", include).upper()
    f.write(f"/* Generated from trace.def. */\n#ifndef {guard}\n#define {guard}\n\n#include \"base/log.h\"\n")
    for name, args, text in rows:
        decl = ", ".join(f"{t} {a}" for t, a in args) or "void"
        values = "".join(", " + passed(t, a) for t, a in args)
        f.write(f"\nextern struct trace_event event_{name};\nstatic inline void trace_{name}({decl})\n{{\n"
                f"    if (trace_on(&event_{name}))\n        trace_line(&event_{name}, {text}{values});\n}}\n")
    f.write("\n#endif\n")
with open(out_c, "w") as f:
    f.write(f"/* Generated from trace.def. */\n#include \"{include}\"\n\n")
    for name, _, _ in rows:
        f.write(f"struct trace_event event_{name} = {{.name = \"{name}\"}};\n")
    f.write("\n__attribute__((constructor)) static void register_events(void)\n{\n")
    for name, _, _ in rows:
        f.write(f"    trace_register(&event_{name});\n")
    f.write("}\n")
