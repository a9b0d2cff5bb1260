"""Snapshots of instances: the tree, running machines, merges, and what must be refused."""
import json, os, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from guest import Store
from tap import main, skip

POSADA, WORK = sys.argv[1:3]
os.makedirs(WORK, exist_ok=True)
store = Store(POSADA, WORK)


def launch(name, *more):
    store.need_image()
    store("delete", "--force", name)
    store.ok("launch", "tiny", name, "--memory", "128M", "--disk-size", "64M", *more)


def parents(name):
    return {s["name"]: s["parent"] for s in store.json("snapshot", "list", name)["snapshots"]}


def block(shell, n):
    return shell.run(f"dd if=/dev/vda bs=64k skip={n} count=1 2>/dev/null | tr -d '\\000'").strip()


def put(shell, n, text):
    shell.run(f"echo {text} | dd of=/dev/vda bs=64k seek={n} conv=notrunc,sync,fsync 2>/dev/null; sync")


def test_a_tree_of_running_snapshots():
    launch("tree")
    s = store.shell("tree")
    put(s, 1, "one")
    s.run("counter=1; : > /tmp/ticks; (while sleep 0.1; do echo >> /tmp/ticks; done &)")
    store.ok("snapshot", "create", "tree/a", "--description", "the first")
    put(s, 1, "two")
    put(s, 2, "two")
    s.run("counter=2")
    assert store.ok("snapshot", "create", "tree") == "tree/snap1\n"
    put(s, 1, "three")
    s.close()
    store.ok("snapshot", "restore", "tree/a")
    s = store.shell("tree")
    assert s.run("echo $counter") == "1\n"          # the same shell goes on
    old = s.run("wc -l < /tmp/ticks")
    time.sleep(0.5)
    assert s.run("wc -l < /tmp/ticks") != old           # and so does what it had started
    assert block(s, 1) == "one" and block(s, 2) == ""
    put(s, 3, "branch")
    store.ok("snapshot", "create", "tree/b", "--disk-only")
    put(s, 3, "after")
    assert parents("tree") == {"a": None, "snap1": "a", "b": "a"}
    out = store.ok("snapshot", "list", "tree")
    assert [line.split()[:2] for line in out.splitlines()][1:] == \
        [["`-", "a"], ["|-", "snap1"], ["`-", "b"], ["`-", "(now)"]], out
    i = store.json("snapshot", "info", "tree/a")
    assert i["running"] and i["state_bytes"] > 100000 and i["description"] == "the first", i
    s.close()
    store.ok("snapshot", "restore", "tree/snap1", "--keep")
    s = store.shell("tree")
    assert s.run("echo $counter") == "2\n" and block(s, 1) == "two" and block(s, 3) == ""
    s.close()
    kept = [n for n, p in parents("tree").items() if p == "b"]
    assert kept == ["snap2"], parents("tree")
    store.ok("snapshot", "rename", "tree/snap2", "kept", "--description", "of the branch")
    store.ok("snapshot", "delete", "tree/a")        # two children, and a running machine below one
    store.settle("tree")
    assert parents("tree") == {"snap1": None, "b": None, "kept": "b"}
    store.ok("snapshot", "restore", "tree/kept")
    s = store.shell("tree")
    assert block(s, 3) == "after" and block(s, 1) == "one" and s.run("echo $counter") == "1\n"
    s.close()
    for name in "snap1", "b", "kept":
        store.ok("snapshot", "delete", f"tree/{name}")
    store.settle("tree")
    assert len(store.tree("tree")["layers"]) == 1
    s = store.shell("tree")
    assert block(s, 3) == "after" and block(s, 1) == "one" and block(s, 2) == ""
    s.close()
    store.ok("stop", "--force", "tree")
    check = subprocess.run(["qemu-img", "check", store.folder("tree") + "/disks/" +
                            store.tree("tree")["layers"][0]["id"] + ".qcow2"], capture_output=True, text=True)
    assert check.returncode in (0, 3), check        # 3: leaked clusters


def test_delete_while_the_guest_writes():
    launch("busy", "--cpus", "2")
    s = store.shell("busy")
    s.run("dd if=/dev/urandom of=/dev/vda bs=1M count=12 2>/dev/null; sync")
    store.ok("snapshot", "create", "busy/one", "--disk-only")
    # Each round writes 64 blocks of its number, reads them back, and compares.
    s.write("/tmp/w", """n=0
while ! [ -e /tmp/stop ]; do
  n=$((n+1)); at=$((n * 37 % 300))
  yes $n | head -c 65536 > /tmp/want
  dd if=/tmp/want of=/dev/vda bs=64k seek=$at conv=notrunc,fsync 2>/dev/null
  dd if=/dev/vda iflag=direct bs=64k skip=$at count=1 2>/dev/null | cmp - /tmp/want || { echo BAD > /tmp/bad; break; }
  echo $n > /tmp/n
done
touch /tmp/stopped""")
    s.run("(sh /tmp/w &)")
    for name in "two", "three", "four":
        time.sleep(0.3)
        store.ok("snapshot", "create", f"busy/{name}", "--disk-only")
    for name in "two", "one", "four", "three":
        store.ok("snapshot", "delete", f"busy/{name}")
    store.settle("busy", 120)
    time.sleep(0.3)
    s.run("touch /tmp/stop; while ! [ -e /tmp/stopped ]; do sleep 0.1; done; ! [ -e /tmp/bad ]")
    assert int(s.run("cat /tmp/n")) > 3
    # What was not written over is what it was.
    want = s.run("sync; md5sum < /dev/vda").split()[0]
    s.close()
    store.ok("stop", "--force", "busy")
    assert len(store.tree("busy")["layers"]) == 1
    store.ok("start", "busy")
    s = store.shell("busy")
    assert s.run("md5sum < /dev/vda").split()[0] == want
    s.close()
    store.ok("delete", "--force", "busy")


def test_stopped():
    launch("off")
    s = store.shell("off")
    put(s, 1, "one")
    s.close()
    store.ok("stop", "--force", "off")
    store.ok("snapshot", "create", "off/a")
    store.ok("snapshot", "create", "off/b")
    assert not store.json("snapshot", "info", "off/b")["running"]
    with open(store.folder("off") + "/instance.yaml") as f:
        config = f.read()
    with open(store.folder("off") + "/instance.yaml", "w") as f:
        f.write(config.replace("cpus: 1", "cpus: 2"))
    store.ok("snapshot", "restore", "off/a")        # the configuration, too
    with open(store.folder("off") + "/instance.yaml") as f:
        assert "cpus: 1" in f.read()
    store.ok("snapshot", "delete", "off/b")
    store.ok("snapshot", "delete", "off/a")
    store.settle("off")
    assert len(store.tree("off")["layers"]) == 1
    store.ok("start", "off")
    s = store.shell("off")
    assert block(s, 1) == "one"
    s.close()
    store.ok("delete", "--force", "off")


def test_a_deletion_copies_the_smaller_part():
    launch("costs", "--cpus", "2")
    s = store.shell("costs")
    fill = lambda at, mib: s.run(f"dd if=/dev/urandom of=/dev/vda bs=1M seek={at} count={mib} conv=notrunc,fsync 2>/dev/null")
    sums = lambda: s.run("dmesg -n 1; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M skip=1 2>/dev/null | md5sum")
    path = lambda layer: f"{store.folder('costs')}/disks/{layer}.qcow2"
    inode = lambda layer: os.stat(path(layer)).st_ino
    layer = lambda snapshot: next(x for x in store.tree("costs")["snapshots"] if x["name"] == snapshot)["disks"]["root"]
    top = lambda: store.tree("costs")["current"]["disks"]["root"]
    fill(1, 24)
    for name in "big", "small":
        store.ok("snapshot", "create", f"costs/{name}", "--disk-only")
        fill(20, 2)
    s.write("/tmp/w", """n=0
while ! [ -e /tmp/stop ]; do
  n=$((n+1)); yes $n | head -c 4096 > /tmp/want
  dd if=/tmp/want of=/dev/vda bs=4k seek=$((n % 200)) conv=notrunc,fsync 2>/dev/null
  dd if=/dev/vda iflag=direct bs=4k skip=$((n % 200)) count=1 2>/dev/null | cmp - /tmp/want || { echo BAD > /tmp/bad; break; }
done
touch /tmp/stopped""")
    s.run("(sh /tmp/w &)")
    want = sums()
    kept = inode(layer("big"))
    store.ok("snapshot", "delete", "costs/big")     # into a layer that nobody writes to
    store.settle("costs")
    assert inode(layer("small")) == kept and sums() == want
    store.ok("snapshot", "delete", "costs/small")   # into what the machine writes to, little
    store.settle("costs")
    assert inode(top()) == kept and len(store.tree("costs")["layers"]) == 1 and sums() == want
    store.ok("snapshot", "create", "costs/again", "--disk-only")
    fill(30, 10)
    want = sums()
    store.ok("snapshot", "delete", "costs/again")   # and more
    store.settle("costs")
    assert inode(top()) == kept and len(store.tree("costs")["layers"]) == 1 and sums() == want
    store.ok("snapshot", "create", "costs/less", "--disk-only")
    fill(1, 40)
    want = sums()
    small = inode(top())
    store.ok("snapshot", "delete", "costs/less")    # the child is the larger: what it lacks goes up
    store.settle("costs")
    assert inode(top()) == small and sums() == want
    s.run("touch /tmp/stop; while ! [ -e /tmp/stopped ]; do sleep 0.1; done; ! [ -e /tmp/bad ]")
    store.ok("snapshot", "create", "costs/off", "--disk-only")
    s.close()
    store.ok("stop", "--force", "costs")
    kept = inode(layer("off"))
    store.ok("snapshot", "delete", "costs/off")     # without a machine
    assert inode(top()) == kept and len(store.tree("costs")["layers"]) == 1
    store.ok("start", "costs")
    s = store.shell("costs")
    assert sums() == want
    s.close()
    store.ok("delete", "--force", "costs")


def test_copies():
    for name in "linked", "second", "full", "later":
        store("delete", "--force", name)
    launch("orig")
    s = store.shell("orig")
    put(s, 1, "one")
    store.ok("snapshot", "create", "orig/a")
    put(s, 1, "two")
    assert store.ok("copy", "--linked", "orig/a", "linked") == "linked\n"
    store.ok("copy", "orig/a", "full")
    store.ok("copy", "orig", "later")               # while it runs
    store.ok("copy", "--linked", "orig", "second")
    store.refused("copy", "orig/a", "full", says="already")
    store.refused("copy", "orig/x", "other", says="no snapshot 'x'")
    store.refused("snapshot", "delete", "orig/a", says="'linked'")
    assert parents("orig") == {"a": None, "for-second": "a"}, parents("orig")
    assert block(s, 1) == "two"
    s.close()
    store.refused("delete", "orig", says="is running")
    store.ok("stop", "--force", "orig")
    store.refused("delete", "orig", says="the disk of")
    store.refused("rename", "orig", "other", says="the disk of")
    configs = {}
    for name, want in ("linked", "one"), ("full", "one"), ("later", "two"), ("second", "two"):
        store.ok("start", name)
        s = store.shell(name)
        assert block(s, 1) == want, (name, want)
        put(s, 2, name)
        s.close()
        store.wait_for(lambda: store("exec", name, "--", "hostname").out == name + "\n", "its agent tells it its name")
        assert not os.path.exists(store.folder(name) + "/introduce")
        with open(store.folder(name) + "/instance.yaml") as f:
            configs[name] = [line for line in f if line.startswith(("uuid", "mac"))]
    assert len({line for lines in configs.values() for line in lines}) == 8, configs
    store.ok("copy", "--promote", "linked")         # it runs
    store.ok("stop", "--force", "second")
    store.ok("copy", "--promote", "second")         # it does not
    store.ok("snapshot", "delete", "orig/a")
    store.ok("snapshot", "delete", "orig/for-second")
    store.settle("orig")
    store.ok("delete", "--force", "orig")
    store.ok("start", "second")
    for name, want in ("linked", "one"), ("full", "one"), ("later", "two"), ("second", "two"):
        s = store.shell(name)
        assert block(s, 1) == want and block(s, 2) == name
        s.close()
        store.ok("stop", "--force", name)
        store.ok("start", name)
        s = store.shell(name)
        assert block(s, 1) == want and block(s, 2) == name
        s.close()
        store.ok("delete", "--force", name)


def test_refusals():
    launch("no")
    store.ok("snapshot", "create", "no/a")
    store.refused("snapshot", "create", "no/a", says="already")
    store.refused("snapshot", "create", "no/a b", says="cannot be a snapshot's name", status=2)
    store.refused("snapshot", "create", "nothing/a", says="no instance 'nothing'")
    store.refused("snapshot", "restore", "no/x", says="no snapshot 'x'")
    store.refused("snapshot", "delete", "no/x", says="no snapshot 'x'")
    store.refused("snapshot", "delete", "no", says="NAME/SNAPSHOT", status=2)
    store.refused("snapshot", "rename", "no/a", "a/b", says="cannot be a snapshot's name")
    assert store.json("list")[0]["state"] == "running"
    # A file of its own that the machine writes to is not covered.
    store.ok("stop", "--force", "no")
    tree = store.folder("no") + "/tree.json"
    with open(tree) as f:
        good = f.read()
    state = store.folder("no") + "/states/" + json.loads(good)["snapshots"][0]["state"] + ".state"
    store.ok("snapshot", "restore", "no/a")
    with open(state, "r+b") as f:
        f.truncate(os.path.getsize(state) // 2)
    store.refused("start", "no", says="'no' cannot go on from its saved state")
    store.ok("start", "--boot", "no")
    store.ok("stop", "--force", "no")
    with open(tree, "w") as f:
        f.write(good.replace('"disks": {', '"disks": {"more": "0123456789abcdef", ', 1))
    store.refused("start", "no", says="tree.json")
    store.refused("snapshot", "list", "no", says="does not exist")
    store.refused("snapshot", "create", "no/b", says="tree.json")
    with open(tree, "w") as f:
        f.write(good[:100])
    store.refused("snapshot", "list", "no", says="tree.json: line")
    store.ok("delete", "no")


def test_no_space():
    work = WORK + "/small-store"
    os.makedirs(work + "/data", exist_ok=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=140M", "posada-test", work + "/data"],
                                      capture_output=True).returncode:
        skip("a small file system cannot be mounted here")
    try:
        small = Store(POSADA, work, images=os.path.realpath(store.env["XDG_DATA_HOME"] + "/posada/images"))
        small.ok("launch", "tiny", "full", "--memory", "512M", "--disk-size", "64M")
        s = small.shell("full")
        put(s, 1, "one")
        s.run("dd if=/dev/urandom of=/tmp/noise bs=1M count=110 2>/dev/null; echo here > /tmp/mark")
        before = small.tree("full")
        r = small("snapshot", "create", "full/a")   # noise does not compress
        assert r.status == 125 and "No space left" in r.err, r
        small.settle("full")
        assert small.tree("full")["snapshots"] == before["snapshots"] == []
        assert s.run("cat /tmp/mark") == "here\n" and block(s, 1) == "one"
        put(s, 2, "two")
        small.ok("snapshot", "create", "full/b", "--disk-only")
        # No room for a merge: it waits, and is done when there is.
        s.run("dd if=/tmp/noise of=/dev/vda bs=1M seek=1 count=12 conv=fsync 2>/dev/null")
        free = os.statvfs(work + "/data")
        with open(work + "/data/filler", "wb") as f:
            f.write(b"x" * (free.f_bavail * free.f_bsize - 300000))
        r = small("snapshot", "create", "full/c")
        assert r.status == 125 and "No space left" in r.err, r
        assert block(s, 2) == "two"
        os.unlink(work + "/data/filler")
        small.ok("snapshot", "delete", "full/b")
        small.settle("full")
        assert block(s, 2) == "two" and block(s, 1) == "one"
        s.close()
        small.ok("delete", "--force", "full")
    finally:
        subprocess.run(["umount", "-l", work + "/data"])


def test_a_guest_waits_while_the_host_is_full():
    work = WORK + "/full-store"
    os.makedirs(work + "/data", exist_ok=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120M", "posada-test", work + "/data"],
                                      capture_output=True).returncode:
        skip("a small file system cannot be mounted here")
    try:
        small = Store(POSADA, work, images=os.path.realpath(store.env["XDG_DATA_HOME"] + "/posada/images"))
        small.ok("launch", "tiny", "pent", "--memory", "128M", "--disk-size", "64M")
        s = small.shell("pent")
        s.run("dd if=/dev/urandom of=/tmp/noise bs=1M count=20 2>/dev/null; md5sum </tmp/noise >/tmp/want; dmesg -n 1")
        with open(work + "/data/filler", "wb") as f:
            free = os.statvfs(work + "/data")
            f.write(b"x" * (free.f_bavail * free.f_bsize - (5 << 20)))
        s.send("dd if=/tmp/noise of=/dev/vda bs=64k oflag=direct; sync; echo written-$?\r")
        small.wait_for(lambda: small.json("info", "pent")["state"] == "no-space", "it is paused")
        i = small.json("info", "pent")
        assert "make room, then 'posada resume pent'" in i["error"], i
        assert "no-space" in small.ok("list")
        small.ok("resume", "pent")                      # there is none yet
        small.wait_for(lambda: small.json("info", "pent")["state"] == "no-space", "it is paused again")
        small.refused("snapshot", "create", "pent/x", says="No space left")
        assert small.tree("pent")["snapshots"] == []
        os.unlink(work + "/data/filler")
        small.ok("resume", "pent")
        s.expect(r"written-0", 120)
        s.run("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=20 2>/dev/null | md5sum | cmp - /tmp/want")
        s.run("! dmesg | grep -i 'i/o error'")
        assert small.json("info", "pent")["state"] == "running" and "error" not in small.json("info", "pent")
        s.close()
        small.ok("delete", "--force", "pent")
    finally:
        subprocess.run(["umount", "-l", work + "/data"])


if __name__ == "__main__":
    try:
        main(globals(), sys.argv[3:])
    finally:
        for name in os.listdir(store.env["XDG_DATA_HOME"] + "/posada/instances") if \
                os.path.isdir(store.env["XDG_DATA_HOME"] + "/posada/instances") else []:
            if not name.startswith("."):
                store("delete", "--force", name)
