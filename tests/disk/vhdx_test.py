"""VHDX images that others have touched, and ours after what only we do: logs, resizing, parents, sector sizes.

That plain images and chains are read equal both ways is tests/disk/matrix_test.py's.
"""
import os, random, shutil, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, use_debian_python

use_debian_python("pyvhdi")
POSADA = os.path.abspath(sys.argv[1])
tmp = tempfile.TemporaryDirectory(prefix="posada-vhdx-")
os.chdir(tmp.name)
MIB = 1 << 20


def good(*args):
    r = run(*args, timeout=120)
    assert r.status == 0, (args, r)
    return r.out


def ours(*args):
    return good(POSADA, "disk", *args)


def write_raw(name, size, seed=1):
    r = random.Random(seed)
    data = bytearray(size)
    for _ in range(30):
        n = r.randrange(1, 200000)
        at = r.randrange(size - n)
        data[at:at + n] = r.randbytes(n)
    with open(name, "wb") as f:
        f.write(data)


def same_for_all(raw, image):
    """Posada, qemu, 7-Zip and libvhdi read from @image what @raw holds."""
    import pyvhdi
    ours("compare", "-f", "raw", "-F", "vhdx", raw, image)
    good("qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, image)
    good("qemu-img", "check", "-f", "vhdx", image)
    with open(raw, "rb") as f:
        want = f.read()
    good("7zz", "x", "-y", "-tVHDX", "-oout", image)
    (name,) = os.listdir("out")
    with open(os.path.join("out", name), "rb") as f:
        assert f.read() == want, "7-Zip reads something else"
    os.unlink(os.path.join("out", name))
    file = pyvhdi.file()
    file.open(image)
    assert file.get_media_size() == len(want)
    assert file.read(len(want)) == want, "libvhdi reads something else"
    file.close()


def test_written_by_qemu_into_ours():
    write_raw("a.raw", 9 * MIB)
    ours("convert", "-O", "vhdx", "a.raw", "a.vhdx")
    ours("resize", "a.vhdx", "21M")
    os.truncate("a.raw", 21 * MIB)
    for name, fmt in (("a.vhdx", "vhdx"), ("a.raw", "raw")):
        good("qemu-io", "-f", fmt, "-c", "write -P 0x51 8m 64k", "-c", "write -P 0x52 19m 4k", name)
    same_for_all("a.raw", "a.vhdx")
    assert "no errors" in ours("check", "a.vhdx")


def test_resized_by_us_from_qemus():
    write_raw("b.raw", 9 * MIB)
    good("qemu-img", "convert", "-O", "vhdx", "b.raw", "b.vhdx")
    ours("resize", "b.vhdx", "60M")
    os.truncate("b.raw", 60 * MIB)
    same_for_all("b.raw", "b.vhdx")


def test_growing_moves_the_table():
    ours("create", "-f", "vhdx", "-o", "block_size=1M", "c.vhdx", "3M")
    ours("resize", "c.vhdx", "500G")
    good("qemu-io", "-f", "vhdx", "-c", "write -P 0x77 499g 64k", "-c", "read -P 0x77 499g 64k", "c.vhdx")
    assert "no errors" in ours("check", "c.vhdx")
    good("qemu-img", "check", "-f", "vhdx", "c.vhdx")


def test_a_log_that_qemu_left():
    """qemu-io aborted in mid-write leaves entries in the log; reading does not change the file."""
    good("qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", "e.vhdx", "40M")
    r = run("qemu-io", "-f", "vhdx", "-c", "write -P 0x61 3m 64k", "-c", "write -P 0x62 9m 64k", "-c", "abort", "e.vhdx",
            timeout=60)
    assert r.status != 0, r
    with open("e.vhdx", "rb") as f:
        before = f.read()
    shutil.copy("e.vhdx", "f.vhdx")
    ours("convert", "-O", "raw", "e.vhdx", "e.raw")
    with open("e.vhdx", "rb") as f:
        assert f.read() == before, "reading has changed the file"
    with open("e.raw", "rb") as f:
        data = f.read()
    assert data[3 * MIB:3 * MIB + 65536] == b"\x61" * 65536 and data[9 * MIB:9 * MIB + 65536] == b"\x62" * 65536
    ours("check", "-r", "all", "f.vhdx")
    good("qemu-img", "compare", "-f", "raw", "-F", "vhdx", "e.raw", "f.vhdx")


def test_sectors_of_4096():
    write_raw("g.raw", 9 * MIB)
    ours("convert", "-O", "vhdx", "-o", "logical_sector_size=4096", "g.raw", "g.vhdx")
    ours("compare", "-f", "raw", "-F", "vhdx", "g.raw", "g.vhdx")
    import pyvhdi
    file = pyvhdi.file()
    file.open("g.vhdx")
    with open("g.raw", "rb") as f:
        assert file.read(9 * MIB) == f.read(), "libvhdi reads something else"
    file.close()


def test_a_chain_is_read_by_libvhdi():
    """Differencing images with sector bitmaps, of which qemu reads none."""
    import pyvhdi
    write_raw("h0.raw", 9 * MIB, 5)
    ours("convert", "-O", "vhdx", "h0.raw", "h0.vhdx")
    names = ["h0.vhdx"]
    for depth in range(1, 5):
        name = f"h{depth}.vhdx"
        ours("create", "-f", "vhdx", "-b", names[-1], "-F", "vhdx", name)
        ours("bench", "-w", "-c", "3", "-o", str(depth * 1500000), "-s", "5000", "-S", "70000", name)
        names.append(name)
    ours("convert", "-O", "raw", names[-1], "want.raw")
    with open("want.raw", "rb") as f, open("h0.raw", "rb") as g:
        want, base = f.read(), g.read()
    for at in (1500000, 3070000, 6140000):
        assert want[at:at + 5000] != base[at:at + 5000], "nothing was written"
    files = []
    for name in names:
        file = pyvhdi.file()
        file.open(name)
        if files:
            file.set_parent(files[-1])
        files.append(file)
    assert files[-1].read(len(want)) == want, "libvhdi reads something else"


def test_commit_empties_and_the_chain_goes_on():
    write_raw("i.raw", 9 * MIB)
    ours("convert", "-O", "vhdx", "i.raw", "i.vhdx")
    ours("create", "-f", "vhdx", "-b", "i.vhdx", "-F", "vhdx", "j.vhdx")
    ours("bench", "-w", "-c", "3", "-o", "1000000", "-S", "3000000", "j.vhdx")
    ours("convert", "--force", "-O", "raw", "j.vhdx", "i.raw")
    ours("commit", "j.vhdx")
    ours("compare", "-f", "vhdx", "-F", "vhdx", "i.vhdx", "j.vhdx")
    same_for_all("i.raw", "i.vhdx")


main(globals(), sys.argv[2:])
