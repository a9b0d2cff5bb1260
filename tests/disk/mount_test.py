"""posada disk mount: a disk's partitions as files, and the file systems in them."""
import os, random, shutil, subprocess, sys, tempfile

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


def test_mistakes_are_one_sentence():
    make_disk()
    r = run(POSADA, "disk", "mount", path("disk.raw"), path("nowhere"))
    assert r.status == 2 and "is not a folder" in r.err, r
    r = run(POSADA, "disk", "unmount", tmp.name)
    assert r.status == 2 and "no disk is mounted at" in r.err, r
    r = run(POSADA, "disk", "mount", path("missing.raw"), tmp.name)
    assert r.status == 125 and "cannot open disk" in r.err and len(r.err.splitlines()) == 1, r


main(globals(), sys.argv[2:])
