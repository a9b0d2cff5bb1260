"""posada disk convert beside qemu-img: several sources, what --json says, what is compressed and what is not."""
import json, os, random, shutil, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA = os.path.abspath(sys.argv[1])
tmp = tempfile.TemporaryDirectory(prefix="posada-convert-")
os.chdir(tmp.name)


def posada(*args):
    return run(POSADA, "disk", *args, timeout=120)


def good(r):
    assert r.status == 0, r
    return r


def ours(*args):
    return good(posada(*args))


def qemu(*args):
    return good(run("qemu-img", *args, timeout=120))


def make(name, size):
    """Data, noise and holes; no multiple of anything but sectors."""
    r = random.Random(name)
    with open(name, "wb") as f:
        f.truncate(size)
        for _ in range(size // 400000 + 1):
            f.seek(r.randrange(size))
            n = r.randrange(1, 200000)
            data = r.randbytes(n) if r.randrange(2) else (b"%d posada " % r.randrange(99)) * (n // 8)
            f.write(data[:size - f.tell()])
    return name


def same(a, b, fmt):
    qemu("compare", "-q", "-f", "raw", "-F", fmt, a, b)


def test_several_sources_become_one():
    sizes = (3000832, 512, 70144, 5 << 20)
    parts = [make(f"part{i}", n) for i, n in enumerate(sizes)]
    qemu("convert", "-f", "raw", "-O", "raw", *parts, "want.raw")
    assert os.path.getsize("want.raw") == sum(sizes)
    for fmt, opts in (("raw", ()), ("qcow2", ()), ("qcow2", ("-c",)), ("vdi", ("-S", "0")), ("vmdk", ("-m", "5"))):
        ours("convert", "--force", "-f", "raw", "-O", fmt, *opts, *parts, "all.img")
        same("want.raw", "all.img", fmt)
    # images of other formats, with a layer below, whose end lies within a chunk
    ours("convert", "-f", "raw", "-O", "qcow2", parts[0], "base.qcow2")
    ours("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "4M")
    ours("convert", "top.qcow2", "base.qcow2", "two.raw")
    qemu("convert", "-O", "raw", "top.qcow2", "base.qcow2", "two.qemu")
    same("two.qemu", "two.raw", "raw")


def test_several_sources_are_refused_where_they_make_no_sense():
    make("a.raw", 1 << 20)
    ours("create", "-f", "qcow2", "low.qcow2", "2M")
    r = posada("convert", "-f", "raw", "-B", "low.qcow2", "-F", "qcow2", "a.raw", "a.raw", "over.qcow2")
    assert r.status != 0 and "one SOURCE" in r.err, r
    r = posada("convert", "-f", "raw", "a.raw", "absent.raw", "none.raw")
    assert r.status != 0 and "absent.raw" in r.err and not os.path.exists("none.raw"), r
    r = posada("convert", "-f", "raw", "a.raw")
    assert r.status != 0 and "SOURCE" in r.err, r
    r = posada("convert", "--force", "-f", "raw", "a.raw", "low.qcow2", "a.raw")
    assert r.status != 0 and "a.raw" in r.err, r  # a source is in use


def test_json_says_what_was_made():
    make("j.raw", 3 << 20)
    j = json.loads(ours("convert", "--json", "-f", "raw", "-O", "qcow2", "j.raw", "j.qcow2").out)
    info = json.loads(qemu("info", "--output=json", "j.qcow2").out)
    for key in "virtual-size", "actual-size", "format", "cluster-size":
        assert j["target"][key] == info[key], (key, j, info)
    assert j["seconds"] >= 0


def test_compressed_images_are_no_larger_than_qemus():
    make("c.raw", 24 << 20)
    for fmt, opts in (("qcow2", "compression_type=zlib"), ("qcow2", "compression_type=zstd"), ("vmdk", "subformat=streamOptimized")):
        ours("convert", "-c", "--force", "-m", "3", "-f", "raw", "-O", fmt, "-o", opts, "c.raw", "c.ours")
        qemu("convert", "-c", "-f", "raw", "-O", fmt, "-o", opts, "c.raw", "c.qemu")
        same("c.raw", "c.ours", fmt)
        ours("compare", "-f", "raw", "-F", fmt, "c.raw", "c.qemu")
        a, b = os.path.getsize("c.ours"), os.path.getsize("c.qemu")
        assert a <= b * 1.02, (fmt, opts, a, b)
        if fmt == "qcow2":
            qemu("check", "-q", "-f", fmt, "c.ours")


def test_blocks_are_shared_where_the_host_can():
    if os.geteuid() or not shutil.which("mkfs.xfs"):
        skip("mounting a file system needs root, and mkfs.xfs")
    with open("xfs.img", "wb") as f:
        f.truncate(400 << 20)
    good(run("mkfs.xfs", "-q", "xfs.img"))
    os.mkdir("x")
    if run("mount", "-o", "loop", "xfs.img", "x").status:
        skip("this host mounts no XFS")
    try:
        r = random.Random(5)
        with open("x/s.raw", "wb") as f:  # extents of a page and more, the end within one
            for at in range(0, 40 << 20, 1 << 20):
                f.seek(at + r.choice((0, 0, 4096, 70000)))
                f.write(r.randbytes(r.choice((4096, 300000, 1 << 20))))
            f.truncate((41 << 20) + 512)
        shutil.copy("x/s.raw", "want.raw")

        def used():
            os.sync()
            st = os.statvfs("x")
            return (st.f_blocks - st.f_bfree) * st.f_frsize

        for fmt in "raw", "qcow2", "vdi", "vmdk", "vhd", "vhdx":
            before = used()
            ours("convert", "-f", "raw", "-O", fmt, "x/s.raw", "x/a.img")
            assert used() - before < 6 << 20, (fmt, used() - before)
            same("want.raw", "x/a.img", "vpc" if fmt == "vhd" else fmt)
            ours("convert", "-f", fmt, "-O", "vmdk" if fmt != "vmdk" else "qcow2", "x/a.img", "x/b.img")
            assert used() - before < 10 << 20, (fmt, used() - before)
            same("want.raw", "x/b.img", "vmdk" if fmt != "vmdk" else "qcow2")
            os.unlink("x/a.img")
            os.unlink("x/b.img")
        # what is written to one of the two is not written to the other
        ours("convert", "-f", "raw", "-O", "qcow2", "x/s.raw", "x/a.img")
        good(run("qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 3M", "x/a.img"))
        same("want.raw", "x/s.raw", "raw")
        # to another file system it is copied
        ours("convert", "-f", "raw", "-O", "qcow2", "x/s.raw", "elsewhere.img")
        same("want.raw", "elsewhere.img", "qcow2")
    finally:
        good(run("umount", "x"))


if __name__ == "__main__":
    main(globals(), sys.argv[2:])
