"""posada run --gdb, driven by the real gdb."""
import json, os, re, shutil, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA, WORK = sys.argv[1:3]
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}


def debug(*commands, cpus=1):
    """What gdb prints for the commands, on a machine that waits before its first instruction."""
    gdb = shutil.which("gdb-multiarch") or skip("gdb-multiarch is not installed")
    r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
    if r.status:
        skip("the image 'tiny' is not built")
    image = json.loads(r.out)
    with tempfile.TemporaryDirectory() as tmp:
        path = tmp + "/gdb"
        machine = subprocess.Popen([POSADA, "run", "--timeout", "120", "--net", "none", "--cpus", str(cpus), "--gdb", path, "--gdb-wait",
                                    "--kernel", image["kernel"]], env=dict(os.environ, **HOME), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            before = ["set remotetimeout 60", "set pagination off", "set architecture riscv:rv64", f"target remote {path}"]
            script = tmp + "/script"
            with open(script, "w") as f:
                f.write("\n".join([*before, *commands, "kill"]) + "\n")
            for _ in range(1200):
                if os.path.exists(path) or machine.poll() is not None:
                    break
                time.sleep(0.05)
            out = subprocess.run([gdb, "-nx", "-batch", "-x", script], capture_output=True, text=True, timeout=120)
            machine.wait(30)
        finally:
            machine.kill()
        return out.stdout + out.stderr


def test_steps_registers_and_memory():
    out = debug("p/x $pc", "stepi", "p/x $a0 == 0", "set $t0 = 0x1234", "p/x $t0", "set *(long*)0x90000000 = 0x55aa", "x/1xg 0x90000000", "info registers satp")
    assert "$1 = 0x80200000" in out, out
    assert re.search(r"\$3 = 0x1234\b", out) and re.search(r"0x90000000:\s+0x0*55aa\b", out), out
    assert re.search(r"satp\s+0x0\b", out), out


def test_breakpoint_in_the_kernel():
    # Linux's first instructions are a no-op that makes "MZ" and a jump: stop where that leads.
    first = debug("stepi", "stepi", "p/x $pc")
    entry = re.search(r"\$1 = (0x[0-9a-f]+)", first)[1]
    assert int(entry, 16) > 0x80200000, first
    out = debug(f"hbreak *{entry}", "continue", "p/x $pc", "delete", cpus=2)
    assert f"$1 = {entry}" in out, out


def test_each_vcpu_is_a_thread():
    out = debug("info threads", cpus=3)
    assert "vCPU 0" in out and "vCPU 2" in out, out


main(globals(), sys.argv[3:])
