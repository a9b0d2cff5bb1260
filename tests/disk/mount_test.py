"""posada disk mount: a disk's partitions as files, and the file systems in them."""
import os, random, re, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA = sys.argv[1]
MB = 1 << 20
tmp = tempfile.TemporaryDirectory()


def path(name):
    return os.path.join(tmp.name, name)


def make_disk():
    """A raw disk with an MBR: partition 1 at 1 MiB, 16 MiB long; random bytes in it."""
    data = bytearray(24 * MB)
    data[MB:17 * MB] = random.Random(3).randbytes(16 * MB)
    data[446:462] = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (16 * 2048).to_bytes(4, "little")
    data[510:512] = b"\x55\xaa"
    with open(path("disk.raw"), "wb") as f:
        f.write(data)
    return data


class Mount:
    def __init__(self, image, *options):
        self.dir = tempfile.mkdtemp(dir=tmp.name)
        r = run(POSADA, "disk", "mount", *options, image, self.dir)
        if r.status == 125 and ("/dev/fuse" in r.err or "fusermount" in r.err or "fuse:" in r.err or "fuse3" in r.err):
            skip(r.err.strip())
        assert r.status == 0, r

    def __enter__(self):
        return self.dir

    def __exit__(self, *why):
        r = run(POSADA, "disk", "unmount", self.dir)
        if why[0] is None:
            assert r.status == 0, r


def test_disk_and_partition_are_files():
    want = make_disk()
    for fmt in ["raw", "vdi"]:
        image = path("disk.raw")
        if fmt != "raw":
            image = path("disk." + fmt)
            assert run(POSADA, "disk", "convert", "-f", "raw", "-O", fmt, "--force", path("disk.raw"), image).status == 0
        with Mount(image, "-f", fmt) as d:
            assert sorted(os.listdir(d)) == ["disk", "p1"]
            assert open(d + "/p1", "rb").read() == want[MB:17 * MB]
            assert open(d + "/disk", "rb").read(len(want)) [:17 * MB] == want[:17 * MB]
            try:
                open(d + "/p1", "r+b")
                raise AssertionError("not refused")
            except OSError:
                pass


def test_writes_reach_the_image_and_snapshots_do_not():
    want = make_disk()
    with Mount(path("disk.raw"), "-f", "raw", "--snapshot") as d:
        with open(d + "/p1", "r+b") as f:
            f.write(b"gone")
    assert open(path("disk.raw"), "rb").read() == want
    with Mount(path("disk.raw"), "-f", "raw", "--write") as d:
        with open(d + "/p1", "r+b") as f:
            f.seek(5000)
            f.write(b"here to stay")
            f.flush()
            os.fsync(f.fileno())
            f.seek(16 * MB)
            try:
                f.write(b"x")  # beyond the end
                f.flush()
                raise AssertionError("not refused")
            except OSError:
                pass
            try:
                f.close()
            except OSError:
                pass
        r = run(POSADA, "disk", "info", path("disk.raw"), "-f", "raw")
        assert r.status == 125 and "in use by process" in r.err, r
    want[MB + 5000:MB + 5012] = b"here to stay"
    assert open(path("disk.raw"), "rb").read() == want


def test_a_file_system_in_a_partition():
    if not shutil.which("mkfs.ext4") or os.getuid():
        skip("needs mkfs.ext4 and root")
    make_disk()
    with Mount(path("disk.raw"), "-f", "raw", "--write") as d:
        assert run("mkfs.ext4", "-q", "-F", d + "/p1").status == 0
        inside = tempfile.mkdtemp(dir=tmp.name)
        r = run("mount", "-o", "loop", d + "/p1", inside)
        if r.status:
            skip("no loop devices: " + r.err.strip())
        try:
            with open(inside + "/hello", "w") as f:
                f.write("posada\n")
        finally:
            assert run("umount", inside).status == 0
    with Mount(path("disk.raw"), "-f", "raw") as d:
        r = run("debugfs", "-R", "cat hello", d + "/p1")
        assert r.out == "posada\n", r


def need_programs(*names):
    for name in names:
        if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            skip(f"{name} is not installed")


def tree():
    """A folder of files to be put into file systems."""
    top = path("tree")
    if not os.path.exists(top):
        os.makedirs(top + "/sub/deeper")
        for name, size in ("small", 6), ("A long name of a file.text", 70000), ("sub/deeper/large", 3 * MB), ("sub/empty", 0):
            with open(os.path.join(top, name), "wb") as f:
                f.write(random.Random(name).randbytes(size))
    return top


def contents(top):
    return {os.path.relpath(os.path.join(d, n), top).lower(): open(os.path.join(d, n), "rb").read()
            for d, _, names in os.walk(top) for n in names}


def make_file_systems():
    """Partition 1: ext4; 2: swap; 3: vfat; as raw and as qcow2."""
    need_programs("mkfs.ext4", "mkfs.vfat", "mcopy", "fuse2fs", "fusefat")
    image = path("files.raw")
    if os.path.exists(image):
        os.unlink(image)
    for name, size in ("p1", 16), ("p3", 40):
        with open(path(name), "wb") as f:
            f.truncate(size * MB)
    assert run("mkfs.ext4", "-q", "-F", "-d", tree(), path("p1")).status == 0
    assert run("mkfs.vfat", path("p3")).status == 0
    for name in os.listdir(tree()):
        assert run("mcopy", "-s", "-i", path("p3"), os.path.join(tree(), name), "::/").status == 0
    table = b"".join(bytes([0, 0, 0, 0, kind, 0, 0, 0]) + (at * 2048).to_bytes(4, "little") + (n * 2048).to_bytes(4, "little")
                     for kind, at, n in ((0x83, 1, 16), (0x82, 17, 1), (0x0c, 18, 40)))
    with open(image, "wb") as f:
        f.write(bytes(446) + table + bytes(16) + b"\x55\xaa")
        for at, name in (1, "p1"), (18, "p3"):
            f.seek(at * MB)
            f.write(open(path(name), "rb").read())
        f.seek(17 * MB + 4086)
        f.write(b"SWAPSPACE2")
        f.truncate(58 * MB)
    assert run(POSADA, "disk", "convert", "-q", "-f", "raw", "--force", image, path("files.qcow2")).status == 0


def test_files_of_ext4_and_vfat():
    make_file_systems()
    for image in path("files.raw"), path("files.qcow2"):
        for partition in 1, 3:
            before = open(image, "rb").read()
            with Mount(image, f"--partition={partition}") as d:
                got = contents(d)
                assert got == contents(tree()), (image, partition, got.keys())
                try:
                    open(d + "/new", "w")
                    raise AssertionError("not refused")
                except OSError:
                    pass
                r = run(POSADA, "disk", "resize", image, "1G", "-f", "raw" if "raw" in image else "qcow2")
                assert r.status == 125 and "in use by process" in r.err, r
            assert not os.listdir(d) and open(image, "rb").read() == before


def test_what_is_written_to_files_stays_or_goes():
    make_file_systems()
    image = path("files.qcow2")
    for partition in 1, 3:
        before = open(image, "rb").read()
        with Mount(image, "--snapshot", f"--partition={partition}") as d:
            with open(d + "/new", "wb") as f:
                f.write(b"new" * 10000)
            assert open(d + "/new", "rb").read() == b"new" * 10000
        assert open(image, "rb").read() == before
        with Mount(image, "--write", f"--partition={partition}") as d:
            with open(d + "/new", "wb") as f:
                f.write(b"new" * 10000)
            os.mkdir(d + "/folder")
            os.unlink(d + "/small")
        with Mount(image, "--partition", partition) as d:
            want = dict(contents(tree()), new=b"new" * 10000)
            del want["small"]
            assert contents(d) == want, (partition, {n: len(v) for n, v in contents(d).items()})
            assert os.path.isdir(d + "/folder")
    assert run(POSADA, "disk", "check", image).status == 0
    with Mount(image) as d:
        for command in ("e2fsck", "-fn", d + "/p1"), ("fsck.vfat", "-n", d + "/p3"):
            r = run(*command)
            assert r.status == 0, r


def test_a_journal_is_replayed_without_writing_to_the_disk():
    """The disk of a machine that was killed: ext4 has to read its journal first."""
    need_programs("mkfs.ext4", "fuse2fs")
    image, inside = path("journal.raw"), tempfile.mkdtemp(dir=tmp.name)
    with open(image, "wb") as f:
        f.truncate(16 * MB)
    assert run("mkfs.ext4", "-q", "-F", image).status == 0
    r = run("mount", "-o", "loop", image, inside)
    if r.status:
        skip("no loop devices: " + r.err.strip())
    try:
        with open(inside + "/hello", "w") as f:
            f.write("posada\n")
            f.flush()
            os.fsync(f.fileno())
        shutil.copy(image, path("killed.raw"))
    finally:
        assert run("umount", inside).status == 0
    assert "needs_recovery" in run("dumpe2fs", "-h", path("killed.raw")).out
    before = open(path("killed.raw"), "rb").read()
    with Mount(path("killed.raw"), "--files") as d:  # no partition table: all of it
        assert open(d + "/hello").read() == "posada\n"
    assert open(path("killed.raw"), "rb").read() == before


def until_unlocked(image):
    while run(POSADA, "disk", "info", "-f", "raw", image).status:
        time.sleep(0.05)


def test_all_ends_with_the_file_system_or_with_a_signal():
    make_file_systems()
    image = path("files.raw")
    env = {"XDG_RUNTIME_DIR": tempfile.mkdtemp(dir=tmp.name)}
    folder = tempfile.mkdtemp(prefix="with space ", dir=tmp.name)
    def mount(*options):
        r = run(POSADA, "disk", "mount", "-f", "raw", "--partition=1", *options, image, folder, env=env)
        assert r.status == 0, r
    mount("--write")
    assert len(os.listdir(env["XDG_RUNTIME_DIR"])) == 1
    r = run(POSADA, "disk", "mount", "-f", "raw", "--partition=3", image, folder, env=env)
    assert r.status == 125 and "is mounted at" in r.err, r
    open(folder + "/by-umount", "w").close()
    assert run("umount", folder).status == 0  # by others
    until_unlocked(image)
    while os.listdir(env["XDG_RUNTIME_DIR"]):
        time.sleep(0.05)
    p = subprocess.Popen([POSADA, "disk", "mount", "--foreground", "-f", "raw", "--partition=1", image, folder],
                         env=dict(os.environ, **env))
    while not os.path.exists(folder + "/by-umount"):
        assert p.poll() is None
        time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    assert p.wait(60) == 0
    assert not os.listdir(folder) and not os.listdir(env["XDG_RUNTIME_DIR"])
    p = subprocess.Popen([POSADA, "disk", "mount", "--foreground", "-f", "raw", "--partition=1", image, folder],
                         env=dict(os.environ, **env))
    while not os.path.exists(folder + "/by-umount"):
        assert p.poll() is None
        time.sleep(0.05)
    p.kill()  # even then the rest can be undone
    p.wait()
    r = run(POSADA, "disk", "unmount", folder, env=env)
    assert r.status == 0 and not os.listdir(folder) and not os.listdir(env["XDG_RUNTIME_DIR"]), r
    until_unlocked(image)


def test_without_a_driver_root_has_the_kernels():
    need_programs("mkfs.ext4")
    if os.getuid():
        skip("needs root")
    make_file_systems()
    folder = tempfile.mkdtemp(dir=tmp.name)
    r = run(POSADA, "disk", "mount", "--partition=1", path("files.qcow2"), folder, env={"PATH": "/nowhere"})
    if r.status and re.search("loop device|does not know", r.err):
        skip(r.err.strip())
    assert r.status == 0, r
    assert "/dev/loop" in run("findmnt", "-no", "SOURCE,OPTIONS", folder).out
    shutil.rmtree(folder + "/lost+found", ignore_errors=True)  # refused
    assert {n: d for n, d in contents(folder).items()} == contents(tree())
    assert run(POSADA, "disk", "unmount", folder).status == 0
    assert not os.listdir(folder)


def test_without_root_what_is_missing_is_named():
    make_file_systems()
    folder = tempfile.mkdtemp(dir=tmp.name)
    os.chmod(tmp.name, 0o755)
    os.chmod(folder, 0o777)
    script = """
        mount --make-rprivate / && mknod -m 666 $1/fuse c 10 229 && chmod 666 $1/fuse && mount --bind $1/fuse /dev/fuse || exit 77
        shift
        exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
        """
    def as_nobody(*argv):
        return run("unshare", "-m", "sh", "-c", script, "sh", tempfile.mkdtemp(dir=tmp.name), *argv)
    if os.getuid() or as_nobody("test", "-w", "/dev/fuse").status:
        skip("needs root, to be somebody else")
    os.chown(folder, 65534, 65534)
    program = shutil.copy(POSADA, path("posada"))
    r = as_nobody("env", "PATH=/nowhere", program, "disk", "mount", "--partition=1", path("files.qcow2"), folder)
    assert r.status == 125 and "needs the program 'fuse2fs' (package fuse2fs)" in r.err and r.err.count("\n") == 1, r
    r = as_nobody("sh", "-c", '"$0" disk mount --partition=1 "$1" "$2" && cat "$2/small" && "$0" disk unmount "$2"',
                  program, path("files.qcow2"), folder)
    assert r.status == 0, r


def test_file_systems_that_are_not_there():
    make_file_systems()
    folder = tempfile.mkdtemp(dir=tmp.name)
    def refused(sentence, image, *options):
        r = run(POSADA, "disk", "mount", "--files", "-f", "raw", *options, image, folder)
        assert r.status == 125 and sentence in r.err and r.err.count("\n") == 1, r
    refused("several partitions hold files: 1 (ext4), 3 (vfat); choose with --partition", path("files.raw"))
    refused("'p2' holds no files: it is swap", path("files.raw"), "--partition=2")
    refused("it has no partition 4", path("files.raw"), "--partition=4")
    refused("it has no partitions", path("p1"), "--partition=1")
    with open(path("broken"), "wb") as f:  # nothing but the magic number
        f.write(bytes(0x438) + b"\x53\xef" + bytes(MB))
    refused("cannot mount 'disk' (ext4): ", path("broken"))
    with open(path("broken"), "wb") as f:
        f.write(bytes(MB))
    refused("'disk' holds no file system that is known", path("broken"))


def test_mistakes_are_one_sentence():
    make_disk()
    r = run(POSADA, "disk", "mount", path("disk.raw"), path("nowhere"))
    assert r.status == 2 and "is not a folder" in r.err, r
    r = run(POSADA, "disk", "unmount", tmp.name)
    assert r.status == 2 and "no disk is mounted at" in r.err, r
    r = run(POSADA, "disk", "mount", path("missing.raw"), tmp.name)
    assert r.status == 125 and "cannot open disk" in r.err and len(r.err.splitlines()) == 1, r


main(globals(), sys.argv[2:])
