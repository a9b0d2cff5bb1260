"""The whole life of one Debian instance: written to, frozen, thrown back, forked, copied, carried away, deleted.

Each test goes on from where the one before it has left the instance `box`. Slow: it builds the image if there is none of
this build, and installs fio in the guest. Without a mirror all is skipped.
"""
import json, os, re, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from guest import Store
from tap import main, run, skip

POSADA, WORK, PROBE = sys.argv[1:4]
BOOT = "900s"
LINKED = [f"linked-{i}" for i in range(3)]
LIVE = [f"live-{i}" for i in range(10)]
IMAGES = Store(POSADA, WORK)                            # shared with the other Debian tests
store = Store(POSADA, WORK + "-whole-life", images=os.path.realpath(WORK) + "/data/posada/images")
reached = []                                            # tests that have passed: each needs those before it
# Six files of random bytes and one of zeroes, with their sums; KIND tells the states of the disk apart.
WRITE = ("set -e; mkdir -p /srv/$KIND; cd /srv/$KIND; for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=f$i bs=64k count=$((i * 8)) 2>/dev/null; done; "
         "dd if=/dev/zero of=f7 bs=1M count=4 2>/dev/null; sha256sum f? >sums; sync")


def step(fn):
    """A test that needs all before it."""
    number = step.count = getattr(step, "count", 0) + 1

    def test():
        if len(reached) < number - 1:
            skip("a step before it has failed")
        began = time.monotonic()
        fn()
        print(f"# {fn.__name__}: {time.monotonic() - began:.0f} s")
        reached.append(fn.__name__)
    globals()["test_" + fn.__name__] = test
    return fn


def sh(name, script, *options, **kw):
    return store.ok("exec", *options, name, "--", "sh", "-c", script, timeout=kw.pop("timeout", 900), **kw)


def boot(name):
    out = sh(name, "systemctl is-system-running --wait; true", "--wait", BOOT, timeout=1500)
    assert out == "running\n", (name, out, sh(name, "systemctl --failed --no-legend"))


def write(kind, name="box"):
    sh(name, f"KIND={kind}; {WRITE}")


def holds(name, *kinds):
    """These states of the disk, and no other, whole."""
    assert sh(name, "ls /srv").split() == sorted(kinds), (name, sh(name, "ls /srv"))
    for kind in kinds:
        sh(name, f"cd /srv/{kind} && sha256sum --quiet -c sums")


def tick(shell):
    return int(shell.expect(r"tick (\d+)\r\n", 60).group(1))


def count_on(shell, n=5):
    """The next numbers of the counter, none lost or twice."""
    first = tick(shell)
    for i in range(1, n):
        assert tick(shell) == first + i
    return first


def parents(name):
    return {s["name"]: s["parent"] for s in store.json("snapshot", "list", name)["snapshots"]}


def fio(seconds):
    """fio in the guest, which checks all that it has written."""
    return subprocess.Popen(
        [POSADA, "exec", "box", "--", "fio", "--name=j", "--directory=/var/tmp", "--rw=randrw", "--bsrange=4k-64k", "--size=48M",
         "--ioengine=libaio", "--iodepth=8", "--direct=1", "--fsync=50", "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1",
         "--time_based", f"--runtime={seconds}", "--output-format=terse"],
        env=dict(os.environ, **store.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@step
def launch_and_write():
    r = IMAGES("image", "info", "debian", "--json")
    # An image of an older build has an older agent.
    if r.status or os.path.getmtime(json.loads(r.out)["disk"]) < os.path.getmtime(PROBE):
        b = IMAGES("image", "build", "debian", timeout=3000)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b
    forget()
    assert store.ok("launch", "debian", "box", "-m", "512M", "-c", "2", timeout=300) == "box\n"
    boot("box")
    sh("box", "export DEBIAN_FRONTEND=noninteractive; apt-get -q update >/dev/null && apt-get -qy --no-install-recommends install fio >/tmp/apt.log 2>&1 "
              "|| { tail -5 /tmp/apt.log; exit 1; }", timeout=2400)
    write("start")
    store.ok("snapshot", "create", "box/base", timeout=600)


@step
def snapshots_while_a_shell_counts():
    write("one")
    s = store.shell("box")
    s.send("n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.3; done\r")
    count_on(s)
    store.ok("snapshot", "create", "box/first", "--description", "the shell counts", timeout=600)
    global at_first
    at_first = count_on(s)
    write("two")
    store.ok("snapshot", "create", "box/second", timeout=600)
    write("lost")
    assert count_on(s) > at_first
    s.close()
    assert parents("box") == {"base": None, "first": "base", "second": "first"}


@step
def restore_the_first():
    store.ok("snapshot", "restore", "box/first", timeout=600)
    s = store.shell("box", prompt=r"tick")
    again = count_on(s)                                 # the same shell, from then
    assert again <= at_first + 1, (again, at_first)
    s.close()
    holds("box", "start", "one")


@step
def branch_again():
    write("branch")
    store.ok("snapshot", "create", "box/branch", timeout=600)
    write("now")
    assert parents("box") == {"base": None, "first": "base", "second": "first", "branch": "first"}
    holds("box", "start", "one", "branch", "now")


@step
def delete_the_middle_while_fio_verifies():
    p = fio(60)
    try:
        time.sleep(5)
        store.ok("snapshot", "delete", "box/first")     # two children: its layer stays, without a name
        assert parents("box") == {"base": None, "second": "base", "branch": "base"}
        time.sleep(2)
        store.ok("snapshot", "delete", "box/second")    # now it has one child, and is merged
        store.settle("box", 300)
        assert p.poll() is None, "fio ended before the merge"
        out, err = p.communicate(timeout=900)
    finally:
        p.kill()
        p.wait()
    assert p.returncode == 0, (out, err)
    holds("box", "start", "one", "branch", "now")
    assert parents("box") == {"base": None, "branch": "base"} and len(store.tree("box")["layers"]) == 3, store.tree("box")


@step
def three_linked_clones():
    for name in LINKED:
        assert store.ok("copy", "--linked", "box/branch", name) == name + "\n"
    store.ok("start", *LINKED, timeout=600)
    for name in LINKED:
        boot(name)
        holds(name, "start", "one", "branch")
        write(name, name)
    identities({"box", *LINKED})
    for name in LINKED:
        holds(name, "start", "one", "branch", name)
        store.ok("stop", name, timeout=600)


def identities(names):
    """Each has a name, an address and a machine-id of its own."""
    seen = {}
    for name in names:
        store.wait_for(lambda: not os.path.exists(store.folder(name) + "/introduce"), name)
        got = sh(name, "hostname; cat /etc/machine-id /sys/class/net/e*/address /etc/hostname").split()
        assert name == "box" or (got[0], got[3]) == (name, name), (name, got)
        for what in got[1:3]:
            assert what not in seen, (name, seen[what], what)
            seen[what] = name
        # after a new machine-id, the network is asked for a lease again
        store.wait_for(lambda: "10.0.2.15" in store.json("info", name)["addresses"], store.json("info", name))


@step
def ten_live_clones():
    sh("box", "echo in-memory >/run/mark")
    for name in LIVE:
        store.ok("copy", "--live", "box", name)
    for i, name in enumerate(LIVE):
        assert sh(name, "cat /run/mark; hostname") == f"in-memory\n{name}\n"
        sh(name, f"echo {name} >/run/mark; echo {name} >/srv/mine; sync")
    identities({"box", *LIVE})
    for name in "box", *LIVE:
        want = "in-memory\n" if name == "box" else f"{name}\n{name}\n"
        assert sh(name, "cat /run/mark; cat /srv/mine 2>/dev/null; true") == want
    store.ok("stop", "--force", *LIVE[1:])
    holds_but_mine(LIVE[0])


def holds_but_mine(name):
    sh(name, "rm /srv/mine")
    holds(name, "start", "one", "branch", "now")


@step
def the_original_is_needed():
    store.refused("delete", "box", says="'box' is running: stop it, or use --force")
    r = store("delete", "--force", "box")
    assert r.status == 125 and "the disk of" in r.err and re.search(r"'(linked|live)-\d'", r.err), r
    assert store.json("info", "box")["state"] == "running"
    store.refused("snapshot", "delete", "box/branch", says="is needed by 'linked-")


@step
def export_and_import():
    file = store.work + "/box.posada"
    store.refused("export", "box", file, says="running")
    store.ok("stop", "box", timeout=600)
    store.ok("export", "--snapshots", "--force", "box", file, timeout=1800)
    store.ok("import", file, "--name", "carried", timeout=1800)
    os.unlink(file)
    assert parents("carried") == parents("box")
    store.ok("start", "carried")
    boot("carried")
    holds("carried", "start", "one", "branch", "now")
    identities({"carried", LIVE[0]})
    store.ok("stop", "carried", timeout=600)
    store.ok("snapshot", "restore", "carried/base")
    store.ok("start", "carried")
    holds("carried", "start")


@step
def nothing_is_left():
    store.ok("delete", "--force", *LIVE, *LINKED, "carried", timeout=600)
    for name in parents("box"):
        store.ok("snapshot", "delete", "box/" + name)
    store.ok("start", "box")
    store.settle("box", 600)
    boot("box")
    holds("box", "start", "one", "branch", "now")
    store.ok("delete", "--force", "box")
    left = [f for d in ("instances", "bases") if os.path.isdir(f"{store.work}/data/posada/{d}") for f in os.listdir(f"{store.work}/data/posada/{d}")]
    assert not [f for f in left if not f.endswith((".lock", ".run"))], left


def forget():
    """Clones before what they lie on."""
    while names := [i["name"] for i in store.json("list")]:
        assert [n for n in names if store("delete", "--force", n).status == 0], names


if __name__ == "__main__":
    try:
        main(globals(), sys.argv[4:])
    finally:
        forget()
