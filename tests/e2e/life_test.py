"""Instances of the image `tiny`, with real guests: their life, a saved state, and many at once.

POSADA_MANY (4) says how many are many; check-slow has 200, which take some 16 GiB when they are idle.
"""
import json, os, re, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run, skip

POSADA, WORK = sys.argv[1:3]
SECONDS = 240
MANY = int(os.environ.get("POSADA_MANY", "4"))
os.makedirs(WORK + "/run", exist_ok=True)
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache", "XDG_RUNTIME_DIR": WORK + "/run"}


def posada(*args, **kw):
    return run(POSADA, *args, env=HOME, input=None, timeout=kw.pop("timeout", SECONDS), **kw)


def ok(*args, **kw):
    r = posada(*args, **kw)
    assert r.status == 0, (args, r)
    return r.out


def need_image():
    if posada("image", "info", "tiny").status:
        b = posada("image", "build", "tiny", timeout=600)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b


def info(name):
    return json.loads(ok("info", "--json", name))


def wait_for_log(name, text):
    end = time.monotonic() + SECONDS
    while text not in ok("logs", name):
        assert time.monotonic() < end and info(name)["state"] == "running", ok("logs", name)
        time.sleep(0.2)


def test_a_guest_goes_on_from_its_saved_state():
    need_image()
    posada("delete", "--force", "life")
    ok("launch", "tiny", "life", "-m", "128M")
    wait_for_log("life", "/ #")
    t = Terminal(POSADA, "console", "life", env=HOME)
    t.send("kept=$((6 * 7))\r")
    t.send("echo is-$kept\r")
    t.expect("is-42")
    ok("stop", "--save", "life")
    t.wait()
    assert info("life")["state"] == "saved"
    ok("start", "life")
    t = Terminal(POSADA, "console", "life", env=HOME)
    t.send("echo still-$kept\r")
    t.expect("still-42", SECONDS)
    t.send("\x1dd")
    assert t.wait() == 0
    ok("stop", "life")
    assert info("life")["reason"] == "poweroff"
    ok("delete", "life")


def wait_for_state(name, *states):
    end = time.monotonic() + SECONDS
    while (i := info(name))["state"] not in states:
        assert time.monotonic() < end, i
        time.sleep(0.1)
    return i


def test_a_panic_is_shown_and_restarted_from():
    need_image()
    posada("delete", "--force", "panic")
    ok("launch", "tiny", "panic", "-m", "128M", "--restart", "on-failure:1")
    ok("exec", "--wait", f"{SECONDS}s", "panic", "--", "true")
    posada("exec", "panic", "--", "sh", "-c", "echo c >/proc/sysrq-trigger", timeout=60)
    end = time.monotonic() + SECONDS
    while info("panic").get("restarts") != 1:
        assert time.monotonic() < end, info("panic")
        time.sleep(0.1)
    ok("exec", "--wait", f"{SECONDS}s", "panic", "--", "true")
    posada("exec", "panic", "--", "sh", "-c", "echo c >/proc/sysrq-trigger", timeout=60)
    i = wait_for_state("panic", "panicked")
    assert i["reason"] == "panic" and "Kernel panic - not syncing" in ok("logs", "panic"), i
    assert "panicked" in ok("list")
    ok("start", "panic")
    ok("exec", "--wait", f"{SECONDS}s", "panic", "--", "true")
    posada("exec", "panic", "--", "reboot", "-f", timeout=60)   # is none
    wait_for_log("panic", "reboot: Restarting system")
    ok("exec", "--wait", f"{SECONDS}s", "panic", "--", "true")
    assert info("panic")["restarts"] == 0
    ok("delete", "--force", "panic")


def test_what_is_set_while_it_runs():
    need_image()
    r = posada("launch", "tiny", "set", "-m", "64M")
    assert r.status == 2 and "a guest of image 'tiny' needs at least 128M" in r.err, r
    posada("delete", "--force", "set")
    ok("launch", "tiny", "set", "-m", "256M")
    free = lambda: int(re.search(r"MemFree: *(\d+)", ok("exec", "--wait", f"{SECONDS}s", "set", "--", "cat", "/proc/meminfo"))[1]) >> 10
    before = free()
    r = posada("set", "set", "memory=160M")
    assert r.status == 0 and r.err == "" and info("set")["memory_bytes"] == 160 << 20, (r, info("set"))
    end = time.monotonic() + SECONDS
    while free() > before - 70:
        assert time.monotonic() < end, (before, free())
        time.sleep(0.5)
    ok("set", "set", "memory=256M")
    while free() < before - 30:
        assert time.monotonic() < end, (before, free())
        time.sleep(0.5)
    r = posada("set", "set", "memory=512M")
    assert r.status == 0 and "memory is used from its next start on" in r.err, r
    r = posada("set", "set", "cpus=2")
    assert r.status == 0 and "cpus is used from its next start on" in r.err, r
    r = posada("stop", "--save", "set")
    assert r.status == 125 and "has been set and is used from its next start on" in r.err, r
    ok("exec", "set", "--", "touch", "/tmp/mark")
    ok("snapshot", "create", "set/was")             # with the processors and memory that it has
    ok("stop", "set")
    ok("start", "set")
    assert ok("exec", "--wait", f"{SECONDS}s", "set", "--", "nproc") == "2\n"
    ok("snapshot", "restore", "set/was")
    assert ok("exec", "--wait", f"{SECONDS}s", "set", "--", "sh", "-c", "ls /tmp/mark; nproc") == "/tmp/mark\n1\n"
    assert ok("get", "set", "cpus", "memory") == "1\n256M\n"
    ok("stop", "--save", "set")
    r = posada("set", "set", "memory=512M")
    assert r.status == 125 and "has a saved state, which needs 'memory' as it is" in r.err, r
    ok("set", "set", "description=kept")
    ok("start", "set")
    ok("exec", "set", "--wait", "60s", "--", "ls", "/tmp/mark")
    ok("delete", "--force", "set")


def wait_until_idle(names):
    """Until most have given memory back, which they do when idle for ten seconds; the median of what they have."""
    for _ in range(60):
        states = {i["name"]: i for i in json.loads(ok("list", "--json"))}
        used = sorted(states[n]["resident_bytes"] for n in names)
        if used[len(used) * 3 // 4] < 128 << 20:
            break
        time.sleep(2)
    return used[len(used) // 2]


def test_many_at_once():
    need_image()
    names = [f"many{i}" for i in range(MANY)]
    posada("delete", "--force", *names)
    for name in names:
        ok("launch", "--no-start", "tiny", name, "-m", "128M")
    try:
        ok("start", *names, timeout=1800)
        for name in names:
            wait_for_log(name, "/ #")
        began = time.monotonic()
        states = {i["name"]: i for i in json.loads(ok("list", "--json"))}
        took = time.monotonic() - began
        assert all(states[n]["state"] == "running" for n in names), states
        used = wait_until_idle(names)
        print(f"# {MANY} machines listed in {took * 1000:.0f} ms; {used >> 20} MiB each when idle, 128 MiB of it the guest's at most")
        assert used < 128 << 20, used  # a booted one has 180
        ok("stop", *names, timeout=1800)
        assert all(info(n)["reason"] == "poweroff" for n in names)
    finally:
        posada("delete", "--force", *names)


if __name__ == "__main__":
    main(globals(), sys.argv[3:])
