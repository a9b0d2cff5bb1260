"""Live clones of running instances: their memory, disks and identity are their own."""
import os, signal, socket, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from guest import Store
from tap import main

POSADA, WORK = sys.argv[1:3]
CLONES = 5
os.makedirs(WORK, exist_ok=True)
store = Store(POSADA, WORK)


def delete_all():
    """Clones before what they lie on."""
    while names := [i["name"] for i in store.json("list")]:
        gone = [n for n in names if store("delete", "--force", n).status == 0]
        assert gone, names


def launch(name, *more):
    store.need_image()
    delete_all()
    store.ok("launch", "tiny", name, "--memory", "192M", "--disk-size", "64M", *more)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def put(shell, n, text):
    shell.run(f"echo {text} | dd of=/dev/vda bs=64k seek={n} conv=notrunc,sync,fsync 2>/dev/null; sync")


def block(shell, n):
    return shell.run(f"dmesg -n 1; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k skip={n} count=1 2>/dev/null | tr -d '\\000'"
                     ).strip()


def config(name):
    with open(store.folder(name) + "/instance.yaml") as f:
        return dict(line.strip().split(": ", 1) for line in f if ": " in line and not line.startswith("#"))


def test_clones_go_their_own_ways():
    launch("orig", "-p", f"127.0.0.1:{free_port()}:80")
    s = store.shell("orig")
    s.run("modprobe virtio_blk 2>/dev/null; mdev -s; state=kept")
    put(s, 1, "before")
    names = [f"orig-{i}" for i in range(CLONES)]
    for i, name in enumerate(names):
        assert store.ok("copy", "orig", name, "--live") == f"{name}\n"
        put(s, 2, f"later{i}")
        s.run(f"state=kept{i}")
    for i, name in enumerate(names):
        g = store.shell(name)
        assert g.run("echo $state") == ("kept\n" if i == 0 else f"kept{i - 1}\n")
        assert (block(g, 1), block(g, 2)) == ("before", f"later{i - 1}" if i else ""), (i, block(g, 1), block(g, 2))
        put(g, 2, f"mine{i}")
        assert g.run("dmesg | grep -c 'crng reseeded due to virtual machine fork'").strip() == str(1)
        g.close()
    assert block(s, 2) == f"later{CLONES - 1}" and s.run("echo $state") == f"kept{CLONES - 1}\n"
    for i, name in enumerate(names):
        g = store.shell(name)
        assert block(g, 2) == f"mine{i}"
        g.close()
    macs = {config(n)["mac"] for n in names + ["orig"]}
    uuids = {config(n)["uuid"] for n in names + ["orig"]}
    assert len(macs) == len(uuids) == CLONES + 1 and all("publish" not in config(n) for n in names)
    s.close()


def test_clone_has_a_name_and_address_of_its_own():
    g = "orig-0"
    assert store.ok("exec", g, "--", "hostname") == "orig-0\n"
    mac = config(g)["mac"].strip('"')
    assert mac in store.ok("exec", g, "--", "cat", "/sys/class/net/eth0/address")


def test_original_outlives_and_is_needed():
    store.refused("delete", "--force", "orig", says="orig-")
    pid = store.json("info", "orig")
    pid = (pid[0] if isinstance(pid, list) else pid)["pid"]
    os.kill(pid, signal.SIGKILL)
    time.sleep(1)
    g = store.shell("orig-1")
    assert block(g, 1) == "before" and block(g, 2) == "mine1"
    put(g, 3, "alone")
    assert block(g, 3) == "alone"
    g.close()
    store.ok("start", "orig")
    s = store.shell("orig")
    s.run("modprobe virtio_blk 2>/dev/null; mdev -s")
    assert (block(s, 1), block(s, 2)) == ("before", f"later{CLONES - 1}"), (block(s, 1), block(s, 2), store.tree("orig"))
    s.close()


def test_clone_of_a_clone_and_restart():
    store.ok("copy", "orig-2", "orig-x", "--live")
    g = store.shell("orig-x")
    assert g.run("echo $state") == "kept1\n" and block(g, 2) == "mine2"
    g.close()
    store.ok("stop", "--force", "orig-x")
    store.ok("start", "orig-x")
    g = store.shell("orig-x")
    g.run("modprobe virtio_blk 2>/dev/null; mdev -s")
    assert g.run("echo =$state") == "=\n" and block(g, 1) == "before" and block(g, 2) == "mine2"
    g.close()


def test_what_cannot_be_cloned():
    store.refused("copy", "orig", "orig-1", "--live", says="there is an instance 'orig-1' already")
    store.refused("copy", "nosuch", "x", "--live", says="nosuch")
    store.ok("stop", "--force", "orig-3")
    store.refused("copy", "orig-3", "x", "--live", says="not run")
    delete_all()


if __name__ == "__main__":
    main(globals(), sys.argv[3:])
