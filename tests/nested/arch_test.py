"""Guests of a few instructions under KVM: what is absent, exceptions, interrupts, wild writes, and every way to end or wedge a machine:
the architecture's answer or a clean stop, never a monitor that hangs.

    arch_test.py POSADA WORK SOURCE GUEST [PATTERN...]"""
import os, re, socket, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from nested import Host
from tap import main, skip

POSADA, WORK, SOURCE, GUEST = [os.path.abspath(a) for a in sys.argv[1:5]]
host = Host(POSADA, WORK, SOURCE)
RUN = "run --engine kvm --arch amd64 --memory 64M --kernel"


def test_the_architectures_answers_and_clean_stops():
    ends = {"all": 60, "triple": 5, "execute-nothing": 5, "halt": 3, "smm": 5, "storm": 3, "keyboard": 5, "control": 5, "off": 20}
    script = "\n".join(f"echo '<{w}>'; posada {RUN} /files/guest --timeout {t} --append {w} >out 2>&1; status=$?\n"
                       f"head -c 6000 out; echo \"</{w}> $status\"" for w, t in ends.items())
    out, _ = host.run(script, 400, files={"guest": GUEST})
    said = {m[1]: (m[2], int(m[3])) for m in re.finditer(r"^<([\w-]+)>\n((?:.|\n)*?)</\1> (\d+)$", out, re.M)}
    assert set(said) == set(ends), out
    text, status = said["all"]
    assert status == 0 and "all done" in text and "bad " not in text and text.count("good ") > 40, text
    for word in "triple", "keyboard", "control":  # the machine starts anew, again and again
        text, status = said[word]
        assert text.count(f"end as {word}") > 1 and status == 124, (word, text, status)
    assert said["execute-nothing"][1] == 125 and "at rip 0xd0000000" in said["execute-nothing"][0], said["execute-nothing"]
    for word in "halt", "storm":
        assert said[word][1] == 124, (word, said[word])
    assert said["smm"][1] in (7, 124, 125), said["smm"]  # 7: a kernel without that mode
    assert said["off"][1] == 0, said["off"]


class Debugger:
    """GDB's side of its protocol."""

    def __init__(self, path):
        end = time.monotonic() + 20
        self.socket = socket.socket(socket.AF_UNIX)
        while self.socket.connect_ex(path):
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.1)
        self.seen = b""

    def __call__(self, text, seconds=60):
        self.socket.sendall(b"+$%s#%02x" % (text.encode(), sum(text.encode()) % 256))
        self.socket.settimeout(seconds)
        while not (m := re.search(rb"\$([^#]*)#..", self.seen)):
            data = self.socket.recv(4096)
            assert data, f"it is gone after {text}"
            self.seen += data
        self.seen = self.seen[m.end():]
        return m[1].decode()

    def register(self, n):
        return int.from_bytes(bytes.fromhex(self(f"p{n:x}")), "little")

    def word(self, at):
        return int.from_bytes(bytes.fromhex(self(f"m{at:x},4")), "little")


def test_a_debugger_stops_and_steps():
    """Here, not in an emulated host: QEMU's SVM has no debug registers for its guests."""
    names = {n: int(a, 16) for a, _, n in (line.split() for line in
             subprocess.run(["nm", GUEST], capture_output=True, text=True, check=True).stdout.splitlines())}
    path = WORK + "/gdb.sock"
    os.makedirs(WORK, exist_ok=True)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        skip("no /dev/kvm that may be opened")
    if os.path.exists(path):
        os.unlink(path)
    p = subprocess.Popen([POSADA, *RUN.split(), GUEST, "--append", "count", "--timeout", "120", "--gdb", path, "--gdb-wait"],
                         env=host.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        d = Debugger(path)
        d("?")
        assert d(f"Z1,{names['count_once']:x},1") == "OK"
        assert d("c").startswith("T05") and d.register(16) == names["count_once"]
        before = d.word(names["counter"])
        for i in range(1, 4):  # as GDB does it: off the breakpoint by a step without it
            assert d(f"z1,{names['count_once']:x},1") == "OK" and d("s").startswith("T05")
            assert names["count_once"] < d.register(16) < names["count_once"] + 16
            assert d(f"Z1,{names['count_once']:x},1") == "OK" and d("c").startswith("T05")
            assert d.register(16) == names["count_once"] and d.word(names["counter"]) == before + i
        for i in range(6):  # more than the processor has: it steps
            assert d(f"Z1,{names['count_once'] + 0x10000 * i:x},1") == "OK"
        assert d(f"z1,{names['count_once']:x},1") == "OK" and d("s").startswith("T05")
        assert d(f"Z1,{names['count_once']:x},1") == "OK"
        before = d.word(names["counter"])
        assert d("c").startswith("T05") and d.register(16) == names["count_once"] and d.word(names["counter"]) <= before + 1
    finally:
        p.kill()
        p.wait()


main(globals(), sys.argv[5:])
