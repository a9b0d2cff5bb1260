"""VDI beside other programs: images that both write to, other sizes, and differencing chains, which only we read.
What each reads of the other's images is in matrix_test.py."""
import os, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run

POSADA = sys.argv[1]
tmp = tempfile.TemporaryDirectory(prefix="posada-vdi-")
MIB = 1 << 20


def path(name):
    return os.path.join(tmp.name, name)


def good(r):
    assert r.status == 0, r
    return r.out


def ours(*args):
    return good(run(POSADA, "disk", *args, timeout=120))


def qemu(*args):
    return good(run("qemu-img", *args, timeout=120))


def qemu_write(image, *commands):
    out = good(run("qemu-io", "-f", "vdi", *(x for c in commands for x in ("-c", c)), path(image), timeout=120))
    assert "rror" not in out, out


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
    ours("convert", "-q", "-O", "raw", "--force", path(image), path("got.raw"))
    with open(want, "rb") as a, open(path("got.raw"), "rb") as b:
        assert a.read() == b.read(), image
    qemu("compare", "-f", "vdi", "-F", "raw", path(image), want)
    qemu("check", "-f", "vdi", path(image))
    ours("check", path(image))


def test_they_write_into_ours():
    ours("create", "-q", "-f", "vdi", path("a.vdi"), "9M")
    qemu_write("a.vdi", "write -P 1 5000k 3000k", "write -P 2 0 4k", "write -P 3 1020k 8k")
    pieces = (5000 * 1024, 3000 * 1024, 1), (0, 4096, 2), (1020 * 1024, 8192, 3)
    expect("a.vdi", 9 * MIB, *pieces)
    source = raw("in.raw", 9 * MIB, *pieces, (8 * MIB, MIB, 4))
    ours("convert", "-q", "-n", "-f", "raw", "-O", "vdi", source, path("a.vdi"))
    expect("a.vdi", 9 * MIB, *pieces, (8 * MIB, MIB, 4))
    qemu_write("a.vdi", "write -P 5 3m 1m")
    expect("a.vdi", 9 * MIB, *pieces, (8 * MIB, MIB, 4), (3 * MIB, MIB, 5))


def test_we_write_into_theirs():
    for name, options in ("b.vdi", []), ("c.vdi", ["-o", "static=on"]):
        qemu("create", "-q", "-f", "vdi", *options, path(name), "9M")
        source = raw("in.raw", 9 * MIB, (4096, 8192, 1), (6 * MIB - 512, MIB, 2))
        ours("convert", "-q", "-n", "-f", "raw", "-O", "vdi", source, path(name))
        expect(name, 9 * MIB, (4096, 8192, 1), (6 * MIB - 512, MIB, 2))
        qemu_write(name, "write -P 3 8m 512k")
        expect(name, 9 * MIB, (4096, 8192, 1), (6 * MIB - 512, MIB, 2), (8 * MIB, MIB // 2, 3))


def test_other_sizes():
    source = raw("in.raw", 9 * MIB, (0, 9 * MIB, 7))
    ours("convert", "-q", "-f", "raw", "-O", "vdi", source, path("d.vdi"))
    ours("resize", "-q", path("d.vdi"), "12M")
    expect("d.vdi", 12 * MIB, (0, 9 * MIB, 7))
    qemu_write("d.vdi", "write -P 8 11m 1m")
    expect("d.vdi", 12 * MIB, (0, 9 * MIB, 7), (11 * MIB, MIB, 8))
    ours("resize", "-q", "--shrink", path("d.vdi"), "4M")
    expect("d.vdi", 4 * MIB, (0, 4 * MIB, 7))
    qemu("create", "-q", "-f", "vdi", path("e.vdi"), "9M")
    qemu_write("e.vdi", "write -P 1 0 9m")
    ours("resize", "-q", path("e.vdi"), "700G")  # its map has room for 128 blocks: the first slots must go
    qemu("check", "-f", "vdi", path("e.vdi"))
    qemu_write("e.vdi", "read -P 1 0 9m", "read -P 0 9m 1m", "write -P 2 699g 64k")
    ours("check", path("e.vdi"))


def test_a_chain_survives_renaming_and_commit():
    base = raw("in.raw", 9 * MIB, (0, 9 * MIB, 1))
    ours("convert", "-q", "-f", "raw", "-O", "vdi", base, path("base.vdi"))
    middle = raw("in2.raw", 9 * MIB, (0, 2 * MIB, 1), (3 * MIB, 6 * MIB, 1), (5 * MIB, 4096, 2))
    ours("convert", "-q", "-f", "raw", "-O", "vdi", "-B", path("base.vdi"), "-F", "vdi", middle, path("middle.vdi"))
    top = raw("in3.raw", 9 * MIB, (0, 2 * MIB, 1), (3 * MIB, 6 * MIB, 1), (5 * MIB, 8192, 3))
    ours("convert", "-q", "-f", "raw", "-O", "vdi", "-B", path("middle.vdi"), "-F", "vdi", top, path("top.vdi"))
    os.rename(path("base.vdi"), path("ground.vdi"))
    ours("compare", "-f", "vdi", "-F", "raw", path("top.vdi"), top)
    ours("compare", "-f", "vdi", "-F", "raw", path("middle.vdi"), middle)
    assert os.path.getsize(path("top.vdi")) < 4 * MIB  # a block of its own, not all
    ours("commit", "-q", path("top.vdi"))
    ours("compare", "-f", "vdi", "-F", "raw", path("middle.vdi"), top)
    ours("compare", "-f", "vdi", "-F", "raw", path("top.vdi"), top)  # still over it
    for image in "ground.vdi", "middle.vdi", "top.vdi":
        ours("check", path(image))


main(globals(), sys.argv[2:])
