"""What the benchmarks share: archives for guests to boot from, the command lines of the peers, a booted guest whose CPU time is read."""
import os, pathlib, re, select, shutil, subprocess, sys, time

here = pathlib.Path(__file__).resolve().parent


def tool(*command):
    """What a command prints; its failure ends the benchmark with its message."""
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {r.returncode}\n{r.stdout[-1000:]}{r.stderr[-1000:]}")
    return r.stdout.strip()


def cpio(entries):
    """A newc archive of (name, mode, content)."""
    out = b""
    for n, (name, mode, data) in enumerate(entries + [("TRAILER!!!", 0, b"")]):
        head = [n + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 5 if mode & 0o020000 else 0, 1 if mode & 0o020000 else 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % v for v in head) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return out


def qemus(options):
    """{name: command line} of the host's QEMU 7.2, if it is there, and of trixie's QEMU 10."""
    all = {}
    if shutil.which("qemu-system-riscv64"):
        all["qemu 7.2"] = ["qemu-system-riscv64", *options]
    root = pathlib.Path(tool(here / "peers", "amd64", "trixie", "qemu-system-riscv"))
    lib = root / "usr/lib/x86_64-linux-gnu"
    all["qemu 10"] = [str(lib / "ld-linux-x86-64.so.2"), "--library-path", str(lib), str(root / "usr/bin/qemu-system-riscv64"),
                      "-L", str(root / "usr/share/qemu"), *options]
    if not (root / "usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin").exists():
        all["qemu 10"] += ["-bios", str(root / "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin")]
    return all


def environment(command):
    """For a command of qemus(): an unpacked QEMU must not load the host's modules."""
    env = dict(os.environ)
    if "--library-path" in command:
        env["QEMU_MODULE_DIR"] = command[command.index("--library-path") + 1] + "/qemu"
    return env


class Guest:
    """A booted engine whose guest prints READY, then takes names of tasks, and says "BEGIN name" and "END name RESULT ..." around each.
    The engine's process's CPU clock is read when these come."""

    def __init__(self, name, command, boot_timeout=240):
        self.name, self.text = name, b""
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(command))
        self.clock = (~self.p.pid << 3) | 2  # clock_getcpuclockid(3)
        self.wait(rb"READY", boot_timeout)

    def wait(self, pattern, timeout):
        end = time.monotonic() + timeout
        while True:
            m = re.search(pattern, self.text)
            if m:
                self.text = self.text[m.end():]
                return m
            ready, _, _ = select.select([self.p.stdout], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self.p.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                self.p.kill()
                sys.exit(f"{self.name}: no '{pattern.decode()}':\n{self.text[-2000:].decode(errors='replace')}")
            self.text += chunk

    def run(self, task, timeout=600):
        """(CPU seconds, result, what the guest printed in between) of a task."""
        self.p.stdin.write(f"{task}\n".encode())
        self.p.stdin.flush()
        self.wait(rb"BEGIN [^\n]*\n", 240)
        start = time.clock_gettime(self.clock)
        m = self.wait(rb"(?s)(.*?)END \S+ (\w+)[^\n]*\n", timeout)
        return time.clock_gettime(self.clock) - start, m[2].decode(), m[1].decode(errors="replace")

    def stop(self):
        self.p.stdin.write(b"quit\n")
        self.p.stdin.flush()
        try:
            self.p.wait(30)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
