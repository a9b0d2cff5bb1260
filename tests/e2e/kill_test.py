"""kill -9 of commands and monitors at random in the middle of snapshots, restores, deletions and copies: after the next command the
instance opens, what the guest had flushed is there, and no file is left over.

    kill_test.py POSADA WORK ROUNDS"""
import os, random, signal, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from guest import Store
from tap import main

POSADA, WORK, ROUNDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
SLOTS, SLOT = 16, 4096
os.makedirs(WORK, exist_ok=True)
store = Store(POSADA, WORK)


class Guest:
    """The instance `hit`, and what its disk must hold: now, and at each snapshot."""

    def __init__(self, rng):
        self.rng = rng
        self.now = [b""] * SLOTS
        self.snapshots = {}
        self.count = 0
        store.need_image()
        for name in "hit-copy", "hit":
            store("delete", "--force", name)
        store.ok("launch", "tiny", "hit", "--memory", "128M", "--disk-size", "64M")
        self.wait()

    def wait(self, seconds=60):
        """Until it runs and has its disk. One that is still ending counts as running, so start is tried again."""
        end = time.monotonic() + seconds
        while True:
            r = store("start", "hit")
            assert r.status == 0 or "is running already" in r.err, r
            r = store("exec", "--wait", "120s", "hit", "--", "sh", "-c", "modprobe virtio_blk; mdev -s; test -b /dev/vda")
            if not r.status:
                return
            assert "is not running" in r.err and time.monotonic() < end, r

    def write(self):
        """A block that is flushed when this returns."""
        slot = self.rng.randrange(SLOTS)
        self.count += 1
        text = b"%d of slot %d" % (self.count, slot)
        store.ok("exec", "hit", "--", "sh", "-c", f"printf '{text.decode()}' | dd of=/dev/vda bs={SLOT} seek={slot} count=1 "
                 "conv=notrunc,sync,fsync 2>/dev/null")
        self.now[slot] = text

    def read(self):
        out = store.ok("exec", "hit", "--", "sh", "-c",
                       f"echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs={SLOT} count={SLOTS} 2>/dev/null | tr '\\000' '~'")
        return [out[i * SLOT:(i + 1) * SLOT].rstrip("~").encode() for i in range(SLOTS)]

    def pids(self):
        return [i["pid"] for i in store.json("list") if i["name"] == "hit" and i.get("pid")]

    def names(self):
        return [s["name"] for s in store.json("snapshot", "list", "hit")["snapshots"]]


def choose(g):
    """A command, and what the disk may hold after it."""
    names = g.names()
    op = g.rng.choice(["create", "create", "restore", "delete", "copy"])
    if op == "create" and len(names) < 4 or not names:
        name = f"s{g.count}"
        g.snapshots[name] = list(g.now)
        return ["snapshot", "create", f"hit/{name}", *g.rng.choice(([], ["--disk-only"]))], [g.now]
    name = g.rng.choice(names)
    if op == "restore":
        return ["snapshot", "restore", f"hit/{name}"], [g.now, g.snapshots[name]]
    if op == "copy":
        return ["copy", f"hit/{name}", "hit-copy", *g.rng.choice(([], ["--linked"]))], [g.now]
    return ["snapshot", "delete", f"hit/{name}"], [g.now]


def strike(g, command):
    """Run it, and kill it, its machine's monitor, or both, somewhere in the middle."""
    p = subprocess.Popen([POSADA, *command], env=dict(os.environ, **store.env), stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(g.rng.random() * 0.4)
    who = g.rng.choice(("command", "monitor", "both"))
    if who != "monitor":
        p.kill()
    if who != "command":
        for pid in g.pids():
            try:
                os.kill(pid, signal.SIGKILL)
                while os.path.exists(f"/proc/{pid}"):  # a process that dies still holds its locks
                    time.sleep(0.01)
            except ProcessLookupError:
                pass
    p.wait()
    return who


def test_nothing_flushed_is_lost():
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"# seed {seed}", flush=True)
    g = Guest(random.Random(seed))
    for turn in range(ROUNDS):
        g.write()
        command, allowed = choose(g)
        who = strike(g, command)
        what = (seed, turn, command, who)
        g.wait()
        held = g.read()
        assert held in allowed, (what, held, allowed)
        g.now = held
        g.snapshots = {n: g.snapshots[n] for n in g.names()}
        if os.path.isdir(store.folder("hit-copy")):
            store.ok("delete", "--force", "hit-copy")
        store.settle("hit")
    for name in g.names():
        store.ok("snapshot", "restore", f"hit/{name}")
        g.wait()
        assert g.read() == g.snapshots[name], (seed, name)
    store.ok("delete", "--force", "hit")
    left = [e for e in os.listdir(os.path.dirname(store.folder("hit"))) if e.startswith((".hit", "hit"))
            and not e.endswith((".lock", ".run"))]
    assert not left, left


if __name__ == "__main__":
    main(globals(), sys.argv[4:])
