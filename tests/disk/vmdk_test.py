"""VMDK beside other programs: disks that both write to, delta links in both directions, other sizes.
What each reads of the other's whole disks is in matrix_test.py."""
import glob, os, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, use_debian_python

use_debian_python("pyvmdk")
import pyvmdk

POSADA = sys.argv[1]
tmp = tempfile.TemporaryDirectory(prefix="posada-vmdk-")
MIB = 1 << 20
SUBFORMATS = "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"


def path(name):
    return os.path.join(tmp.name, name)


def good(r):
    assert r.status == 0, r
    return r.out


def ours(*args):
    return good(run(POSADA, "disk", *args, timeout=120))


def qemu(*args):
    return good(run("qemu-img", *args, timeout=120))


def qemu_io(image, *commands):
    out = good(run("qemu-io", "-f", "vmdk", *(x for c in commands for x in ("-c", c)), path(image), timeout=120))
    assert "rror" not in out and "failed" not in out, out


def raw(name, size, *pieces):
    """A raw disk with pieces of (offset, size, byte)."""
    with open(path(name), "wb") as f:
        f.truncate(size)
        for at, n, byte in pieces:
            f.seek(at)
            f.write(bytes([byte]) * n)
    return path(name)


def expect(image, size, *pieces):
    """Both readers see these pieces, and zeroes elsewhere, and find nothing wrong."""
    want = raw("want.raw", size, *pieces)
    ours("compare", "-q", "-f", "vmdk", "-F", "raw", path(image), want)
    qemu("compare", "-f", "vmdk", "-F", "raw", path(image), want)
    qemu("check", "-f", "vmdk", path(image))
    r = run(POSADA, "disk", "check", path(image))
    assert r.status == 0 or "flat VMDK disks have nothing to check" in r.err, r


def libvmdk(images, size):
    """What libvmdk reads of a chain, the top one first."""
    handles = []
    for image in reversed(images):
        h = pyvmdk.handle()
        h.open(path(image))
        h.open_extent_data_files()
        if handles:
            h.set_parent(handles[-1])
        handles.append(h)
    data = handles[-1].read_buffer(size)
    for h in reversed(handles):
        h.close()
    return data


def test_both_write_into_each_others():
    first = (5000 * 1024, 3000 * 1024, 1), (0, 4096, 2), (60 * 1024, 8192, 3)
    for kind in SUBFORMATS:
        for name, tool in ("o.vmdk", ours), ("q.vmdk", qemu):
            for old in glob.glob(path(name[0] + "*.vmdk")):
                os.unlink(old)
            tool("create", "-q", "-f", "vmdk", "-o", "subformat=" + kind, path(name), "9M")
            qemu_io(name, "write -P 1 5000k 3000k", "write -P 2 0 4k", "write -P 3 60k 8k")
            expect(name, 9 * MIB, *first)
            source = raw("in.raw", 9 * MIB, *first, (8 * MIB, MIB, 4))
            ours("convert", "-q", "-n", "-f", "raw", "-O", "vmdk", source, path(name))
            expect(name, 9 * MIB, *first, (8 * MIB, MIB, 4))
            qemu_io(name, "write -P 5 2m 100k")
            expect(name, 9 * MIB, *first, (8 * MIB, MIB, 4), (2 * MIB, 100 * 1024, 5))


def test_a_delta_link_of_ours_is_read_by_others():
    for zeroed in "off", "on":
        for old in glob.glob(path("*.vmdk")):
            os.unlink(old)
        base = raw("in.raw", 9 * MIB, (0, 9 * MIB, 1))
        ours("convert", "-q", "-f", "raw", "-O", "vmdk", base, path("base.vmdk"))
        pieces = (0, 2 * MIB, 1), (3 * MIB, 6 * MIB, 1), (5 * MIB, 4096, 2), (7 * MIB, 512, 0)
        top = raw("in2.raw", 9 * MIB, *pieces)
        ours("convert", "-q", "-f", "raw", "-O", "vmdk", "-o", "zeroed_grain=" + zeroed, "-B", path("base.vmdk"), "-F",
             "vmdk", top, path("top.vmdk"))
        assert os.path.getsize(path("top.vmdk")) < 3 * MIB
        expect("top.vmdk", 9 * MIB, *pieces)
        if zeroed == "off":  # libvmdk does not know the flag
            with open(top, "rb") as f:
                assert libvmdk(["top.vmdk", "base.vmdk"], 9 * MIB) == f.read()


def test_a_delta_link_of_theirs_is_read_by_us():
    for zeroed in "off", "on":
        for old in glob.glob(path("*.vmdk")):
            os.unlink(old)
        qemu("create", "-q", "-f", "vmdk", path("base.vmdk"), "9M")
        qemu_io("base.vmdk", "write -P 1 0 9m")
        qemu("create", "-q", "-f", "vmdk", "-o", "zeroed_grain=" + zeroed, "-b", path("base.vmdk"), "-F", "vmdk",
             path("top.vmdk"))
        qemu_io("top.vmdk", "write -P 2 5m 4k", "write -z 2m 1m", "write -P 3 100k 1k")
        want = (0, 2 * MIB, 1), (3 * MIB, 6 * MIB, 1), (5 * MIB, 4096, 2), (100 * 1024, 1024, 3)
        expect("top.vmdk", 9 * MIB, *want)
        source = raw("in.raw", 9 * MIB, *want, (8 * MIB, 65536, 4))
        ours("convert", "-q", "-n", "-f", "raw", "-O", "vmdk", source, path("top.vmdk"))
        expect("top.vmdk", 9 * MIB, *want, (8 * MIB, 65536, 4))


def test_commit_keeps_the_chain():
    for old in glob.glob(path("*.vmdk")):
        os.unlink(old)
    base = raw("in.raw", 9 * MIB, (0, 9 * MIB, 1))
    ours("convert", "-q", "-f", "raw", "-O", "vmdk", base, path("base.vmdk"))
    pieces = (0, 5 * MIB, 1), (6 * MIB, 3 * MIB, 2)
    top = raw("in2.raw", 9 * MIB, *pieces)
    ours("convert", "-q", "-f", "raw", "-O", "vmdk", "-B", path("base.vmdk"), "-F", "vmdk", top, path("top.vmdk"))
    ours("create", "-q", "-f", "vmdk", "-b", path("base.vmdk"), "-F", "vmdk", path("other.vmdk"))
    ours("commit", "-q", path("top.vmdk"))
    expect("base.vmdk", 9 * MIB, *pieces)
    expect("top.vmdk", 9 * MIB, *pieces)
    r = run(POSADA, "disk", "convert", "-q", "-O", "raw", path("other.vmdk"), path("x.raw"))
    assert r.status != 0 and "written to since" in r.err, r  # what lay under it is gone
    ours("rebase", "-q", "-u", "-b", path("base.vmdk"), "-F", "vmdk", path("other.vmdk"))
    expect("other.vmdk", 9 * MIB, *pieces)


def test_other_sizes():
    source = raw("in.raw", 9 * MIB, (0, 9 * MIB, 7))
    for kind in "monolithicSparse", "monolithicFlat":
        ours("convert", "-q", "-f", "raw", "-O", "vmdk", "-o", "subformat=" + kind, "--force", source, path("d.vmdk"))
        ours("resize", "-q", path("d.vmdk"), "50M")
        expect("d.vmdk", 50 * MIB, (0, 9 * MIB, 7))
        qemu_io("d.vmdk", "write -P 8 48m 1m")
        expect("d.vmdk", 50 * MIB, (0, 9 * MIB, 7), (48 * MIB, MIB, 8))
        ours("resize", "-q", "--shrink", path("d.vmdk"), "4M")
        expect("d.vmdk", 4 * MIB, (0, 4 * MIB, 7))
    data = libvmdk(["d.vmdk"], 4 * MIB)
    assert data == bytes([7]) * (4 * MIB)


main(globals(), sys.argv[2:])
