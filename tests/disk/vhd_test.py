"""VHD images that others have touched, and ours after what only we do: writing by qemu-io, resizing, parents, emptying.

That plain images and chains are read equal both ways is tests/disk/matrix_test.py's.
"""
import os, random, struct, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, use_debian_python

use_debian_python("pyvhdi")
POSADA = os.path.abspath(sys.argv[1])
tmp = tempfile.TemporaryDirectory(prefix="posada-vhd-")
os.chdir(tmp.name)
MIB = 1 << 20


def good(*args):
    r = run(*args, timeout=120)
    assert r.status == 0, (args, r)
    return r.out


def ours(*args):
    return good(POSADA, "disk", *args)


def io(name, *commands):
    """Requests by qemu-io."""
    good("qemu-io", "-f", "vpc", *[a for c in commands for a in ("-c", c)], name)


def write_raw(name, size, seed=1):
    r = random.Random(seed)
    data = bytearray(size)
    for _ in range(30):
        n = r.randrange(1, 200000)
        at = r.randrange(size - n)
        data[at:at + n] = r.randbytes(n)
    with open(name, "wb") as f:
        f.write(data)


def same_for_all(raw, image, libvhdi_bytes=None):
    """Posada, qemu, 7-Zip and libvhdi read from @image what @raw holds. libvhdi takes a disk's size from the footer's
    Original Size, which resizing leaves."""
    import pyvhdi
    ours("compare", "-f", "raw", "-F", "vhd", raw, image)
    good("qemu-img", "compare", "-f", "raw", "-F", "vpc", raw, image)
    with open(raw, "rb") as f:
        want = f.read()
    good("7zz", "x", "-y", "-tVHD", "-oout", image)
    (name,) = os.listdir("out")
    with open(os.path.join("out", name), "rb") as f:
        assert f.read() == want, "7-Zip reads something else"
    os.unlink(os.path.join("out", name))
    file = pyvhdi.file()
    file.open(image)
    size = libvhdi_bytes or len(want)
    assert file.get_media_size() == size, file.get_media_size()
    assert file.read(size) == want[:size], "libvhdi reads something else"
    file.close()


def test_written_by_qemu_into_ours():
    write_raw("a.raw", 9 * MIB)
    ours("convert", "-O", "vhd", "a.raw", "a.vhd")
    ours("resize", "a.vhd", "21M")
    os.truncate("a.raw", 21 * MIB)
    for name, fmt in (("a.vhd", "vpc"), ("a.raw", "raw")):
        good("qemu-io", "-f", fmt, "-c", "write -P 0x51 8m 64k", "-c", "write -P 0x52 19m 4k", name)
    same_for_all("a.raw", "a.vhd", 9 * MIB)
    assert "no errors" in ours("check", "a.vhd")


def test_resized_by_us_from_qemus():
    write_raw("b.raw", 9 * MIB)
    good("qemu-img", "convert", "-O", "vpc", "-o", "force_size=on", "b.raw", "b.vhd")
    ours("resize", "b.vhd", "40M")
    os.truncate("b.raw", 40 * MIB)
    same_for_all("b.raw", "b.vhd", 9 * MIB)


def test_growing_moves_the_table():
    ours("create", "-f", "vhd", "c.vhd", "3M")
    ours("resize", "c.vhd", "2000G")
    assert "2000 GiB" in good("qemu-img", "info", "-f", "vpc", "c.vhd").replace("1.95 TiB", "2000 GiB")
    io("c.vhd", "write -P 0x77 1999g 64k")
    io("c.vhd", "read -P 0x77 1999g 64k")
    assert "no errors" in ours("check", "c.vhd")


def test_the_size_is_the_current_size_whatever_the_geometry_says():
    ours("create", "-f", "vhd", "d.vhd", "9M")
    with open("d.vhd", "r+b") as f:
        for at in 0, os.path.getsize("d.vhd") - 512:
            f.seek(at)
            b = bytearray(f.read(512))
            b[56:60] = struct.pack(">HBB", 1, 1, 1)
            b[64:68] = bytes(4)
            b[64:68] = struct.pack(">I", ~sum(b) & 0xffffffff)
            f.seek(at)
            f.write(b)
    assert "9 MiB (9437184 bytes)" in ours("info", "d.vhd")


def test_a_parent_is_found_by_windows_names():
    """Locators as Windows writes them: a relative path, and an absolute one with a drive."""
    ours("create", "-f", "vhd", "p.vhd", "4M")
    io("p.vhd", "write -P 0x31 1m 64k")
    for code, path in ((b"W2ru", ".\\p.vhd"), (b"W2ku", "C:\\VMs\\p.vhd"), (b"none", "p.vhd")):
        if os.path.exists("k.vhd"):
            os.unlink("k.vhd")
        ours("create", "-f", "vhd", "-b", "p.vhd", "-F", "vhd", "k.vhd")
        with open("k.vhd", "r+b") as f:
            f.seek(512)
            h = bytearray(f.read(1024))
            text = path.encode("utf-16-le")
            at = struct.unpack(">Q", h[592:600])[0]
            h[576:580] = code if code != b"none" else bytes(4)
            h[584:588] = struct.pack(">I", len(text))
            h[36:40] = bytes(4)
            h[36:40] = struct.pack(">I", ~sum(h) & 0xffffffff)
            f.seek(512)
            f.write(h)
            f.seek(at)
            f.write(text)
        ours("compare", "-f", "vhd", "-F", "vhd", "p.vhd", "k.vhd")


def test_commit_empties_and_the_chain_goes_on():
    write_raw("e.raw", 9 * MIB)
    ours("convert", "-O", "vhd", "e.raw", "e.vhd")
    ours("create", "-f", "vhd", "-b", "e.vhd", "-F", "vhd", "f.vhd")
    ours("bench", "-w", "-c", "3", "-o", "1000000", "-S", "3000000", "f.vhd")
    ours("convert", "--force", "-O", "raw", "f.vhd", "e.raw")
    ours("commit", "f.vhd")
    ours("compare", "-f", "vhd", "-F", "vhd", "e.vhd", "f.vhd")
    same_for_all("e.raw", "e.vhd")


main(globals(), sys.argv[2:])
