"""A host's disk that is full in the middle of a command: a sentence, and the store as it was before it.

On a tmpfs and on an ext4 of its own, with more and less room left. Needs root to mount.
"""
import glob, hashlib, json, os, shutil, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA = sys.argv[1]
tmp = tempfile.TemporaryDirectory()
SMALL = tmp.name + "/small"                             # the file system
BASE = tmp.name + "/base"                               # what is in it at first
ENV = {"HOME": tmp.name, "XDG_DATA_HOME": SMALL, "XDG_CACHE_HOME": tmp.name + "/cache", "XDG_RUNTIME_DIR": tmp.name + "/run", "LC_ALL": "C"}
LEFT = 0, 4096, 16384, 65536, 200 << 10, 300 << 10, 700 << 10
COMMANDS = [("snapshot", "create", "a/x"), ("snapshot", "restore", "a/one"), ("snapshot", "restore", "a/one", "--keep"),
            ("snapshot", "delete", "a/one"), ("copy", "a", "b"), ("copy", "a/one", "b"), ("copy", "--linked", "a/one", "b"),
            ("export", "a", SMALL + "/out.posada"), ("export", "--snapshots", "a", SMALL + "/out.posada"), ("export", "a", SMALL + "/out.ova"),
            ("import", tmp.name + "/in.posada", "--name", "b"), ("import", tmp.name + "/in.ova", "--name", "b"),
            ("launch", "--no-start", "tiny", "b", "--disk-size", "64M"), ("set", "a", "description=" + "x" * 3000), ("rename", "a", "c")]
mounted = []


def posada(*args):
    return run(POSADA, *args, env=ENV, timeout=120, input=None)


def ok(*args):
    r = posada(*args)
    assert r.status == 0, (args, r)
    return r.out


def mount(kind):
    if os.geteuid():
        skip("only root can mount a small file system")
    os.makedirs(SMALL, exist_ok=True)
    if kind == "ext4":
        image = tmp.name + "/ext4.img"
        with open(image, "wb") as f:
            f.truncate(48 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        how = ["-o", "loop", image]
    else:
        how = ["-t", "tmpfs", "-o", "size=32M", "posada-test"]
    if subprocess.run(["mount", *how, SMALL], capture_output=True).returncode:
        skip(f"a small {kind} cannot be mounted here")
    mounted.append(SMALL)


def unmount():
    while mounted:
        subprocess.run(["umount", "-l", mounted.pop()])


def put(text, at, size):
    top = json.loads(ok("info", "--json", "a"))["disk"]
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {text} {at} {size}", top], check=True, capture_output=True)


def prepare():
    """The store that each command begins with, and the files that are imported."""
    folder = SMALL + "/posada/images/tiny-trixie-riscv64"
    os.makedirs(folder)
    for name in "kernel", "initrd":
        with open(f"{folder}/{name}", "w") as f:
            f.write(name)
    with open(folder + "/image", "w") as f:
        f.write("Name: tiny\nMirror: http://x\nKernel: 6.0\nAppend: x\nInitrd: yes\nDisk: no\nBuilt: 1\n")
    ok("launch", "--no-start", "tiny", "a", "--disk-size", "64M")
    put(1, "0", "4M")
    ok("snapshot", "create", "a/one")
    put(2, "2M", "3M")
    ok("snapshot", "create", "a/two")
    put(3, "8M", "1M")
    ok("export", "--force", "a", tmp.name + "/in.posada")
    ok("export", "--force", "a", tmp.name + "/in.ova")
    subprocess.run(["cp", "-a", SMALL + "/posada", BASE], check=True)


def reset():
    for name in os.listdir(SMALL):
        if name != "lost+found":
            subprocess.run(["rm", "-rf", SMALL + "/" + name], check=True)
    subprocess.run(["cp", "-a", BASE, SMALL + "/posada"], check=True)


def fill(left):
    """Take all room but about so many bytes."""
    os.sync()                                           # what ext4 has promised but not allocated yet
    fd = os.open(SMALL + "/filler", os.O_WRONLY | os.O_CREAT)
    size = 0
    try:
        for step in 1 << 20, 65536, 4096:
            while True:
                free = os.statvfs(SMALL).f_bavail * os.statvfs(SMALL).f_bsize
                if free - left < step:
                    break
                os.posix_fallocate(fd, size, step)
                size += step
    except OSError:
        pass
    finally:
        os.close(fd)


def state(name="a"):
    """All that there is: files of configuration as they are, the disk of each point by its content."""
    ok("list")                                          # sweeps
    files = sorted(os.path.relpath(p, SMALL) for p in glob.glob(SMALL + "/**", recursive=True, include_hidden=True) if os.path.isfile(p))
    texts = {p: open(f"{SMALL}/{p}").read() for p in files if p.endswith((".json", ".yaml", "introduce"))}
    tree = json.loads(texts[f"posada/instances/{name}/tree.json"])
    sums = {}
    for point in tree["snapshots"] + [tree["current"]]:
        path = f"{SMALL}/posada/instances/{name}/disks/{point['disks']['root']}.qcow2"
        raw = run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, tmp.name + "/raw")
        assert raw.status == 0, raw
        with open(tmp.name + "/raw", "rb") as f:
            sums[point.get("name")] = hashlib.sha256(f.read()).hexdigest()
    return [p for p in files if not p.endswith((".lock", ".run"))], texts, sums


def every_command(kind):
    mount(kind)
    try:
        shutil.rmtree(BASE, ignore_errors=True)
        prepare()
        reset()
        before = state()
        failed = {}
        for command in COMMANDS:
            for left in LEFT if kind == "tmpfs" else LEFT[::3]:    # each costs its flushes
                reset()
                fill(left)
                r = posada(*command)
                os.unlink(SMALL + "/filler")
                if r.status == 0:
                    state("c" if command[0] == "rename" else "a")
                    continue
                failed[command] = failed.get(command, 0) + 1
                assert r.status == 125 and r.err.count("\n") == 1, (kind, command, left, r)
                assert "No space left" in r.err or "no room" in r.err, (kind, command, left, r)
                after = state()
                if command[:2] == ("snapshot", "delete"):   # the snapshot is gone; its merge goes on when there is room
                    assert after[2][None] == before[2][None], (kind, command, left)
                    continue
                if "--keep" in command:                 # a snapshot came and went: the top is another file, with the same in it
                    assert after[2] == before[2] and len(after[0]) == len(before[0]), (command, left, after)
                    continue
                for was, now in zip(before, after):
                    assert now == was, (kind, command, left, r, [x for x in now if x not in was], [x for x in was if x not in now])
                ok(*command)                            # with room, it works
        print("# failed for want of room: " + ", ".join(f"{' '.join(c[:2])} {n}" for c, n in failed.items()))
        assert len(failed) >= len(COMMANDS) - 3, failed     # some change in place what is there
    finally:
        unmount()


def test_a_full_tmpfs():
    every_command("tmpfs")


def test_a_full_ext4():
    every_command("ext4")


os.makedirs(tmp.name + "/run")
try:
    main(globals(), sys.argv[2:])
finally:
    unmount()
