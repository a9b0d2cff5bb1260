#!/usr/bin/env python3
"""embed.py OUT ROOT [NAME=FILE...]: write a C table of all files under ROOT, and of programs that the build makes, under
the names they are to have: path, mode, contents (struct embedded_file)."""
import pathlib, sys

out, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
rows, bodies = [], []
# Folders too, so that a new file is seen.
deps = [str(p) for p in (root, *sorted(root.rglob("*"))) if p.is_dir()]
files = [(p.relative_to(root).as_posix(), p) for p in sorted(root.rglob("*")) if p.is_file()]
files += [(name, pathlib.Path(file)) for name, file in (a.split("=", 1) for a in sys.argv[3:])]
for n, (name, path) in enumerate(files):
    data = path.read_bytes()
    deps.append(str(path))
    mode = "0755" if path.stat().st_mode & 0o100 else "0644"
    text = "".join(f"\\{b:03o}" for b in data)  # a string compiles many times faster than a list of numbers
    bodies.append(f'static const unsigned char file_{n}[] = "{text}";\n')
    rows.append(f'    {{"{name}", {mode}, file_{n}, {len(data)}}},\n')
out.write_text('#include "image/embedded.h"\n\n' + "".join(bodies) +
               "\nconst struct embedded_file embedded_files[] = {\n" + "".join(rows) + "};\n"
               f"const size_t embedded_file_count = {len(rows)};\n")
out.with_suffix(".d").write_text(f"{out}: {' '.join(deps)}\n")
