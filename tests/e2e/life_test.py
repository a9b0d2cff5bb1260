"""Instances of the image `tiny`, with real guests: their life, a saved state, and many at once.

POSADA_MANY (4) says how many are many; check-slow has 100, which take some 16 GiB.
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
        used = sorted(states[n]["resident_bytes"] for n in names)
        print(f"# {MANY} machines listed in {took * 1000:.0f} ms; {used[len(used) // 2] >> 20} MiB each, 128 MiB of it the guest's at most")
        ok("stop", *names, timeout=1800)
        assert all(info(n)["reason"] == "poweroff" for n in names)
    finally:
        posada("delete", "--force", *names)


if __name__ == "__main__":
    main(globals(), sys.argv[3:])
