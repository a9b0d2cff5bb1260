"""QCOW2 images of qemu-img that Posada goes on writing, and the other way round: internal snapshots, bitmaps, lazy
refcounts, damage. The variants' plain reading and writing is in matrix_test.py."""
import json, os, random, struct, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import end, main, run

POSADA = os.path.abspath(sys.argv[1])
tmp = tempfile.TemporaryDirectory(prefix="posada-qcow2-")
os.chdir(tmp.name)
SIZE = 8 << 20


def good(r):
    assert r.status == 0, r
    return r


def ours(*args):
    return good(run(POSADA, "disk", *args, timeout=120))


def qemu(*args):
    return good(run("qemu-img", *args, timeout=120))


def qemu_io(image, *commands, opts=()):
    return good(run("qemu-io", *opts, "-f", "qcow2", *[x for c in commands for x in ("-c", c)], image, timeout=120))


def sound(image):
    qemu("check", "-q", "-f", "qcow2", image)
    ours("check", "-f", "qcow2", image)


def same(image):
    """Both read the same."""
    ours("convert", "-q", "--force", "-f", "qcow2", "-O", "raw", image, "ours.raw")
    qemu("compare", "-q", "-f", "raw", "-F", "qcow2", "ours.raw", image)


def write_ours(image, seed):
    """Commit an overlay with random writes into @image: it is written by us."""
    r = random.Random(seed)
    if os.path.exists("over.qcow2"):
        os.unlink("over.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", "over.qcow2")
    commands = []
    for i in range(30):
        size = r.choice((512, 4096, 70000, 200000)) // 512 * 512
        at = r.randrange((SIZE - size) // 512) * 512
        commands.append(f"write {'-z' if i % 5 == 4 else '-P %d' % (i + 1)} {at} {size}")
    qemu_io("over.qcow2", *commands)
    qemu("convert", "-f", "qcow2", "-O", "raw", "over.qcow2", "want.raw")
    ours("commit", "-f", "qcow2", "over.qcow2")
    qemu("compare", "-q", "-f", "raw", "-F", "qcow2", "want.raw", image)
    sound(image)
    same(image)


def variants():
    return ("compat=1.1", "compat=0.10", "cluster_size=4K", "extended_l2=on", "refcount_bits=8", "lazy_refcounts=on")


def test_snapshots_keep_what_they_hold():
    for opts in variants():
        qemu("create", "-q", "-f", "qcow2", "-o", opts, "s.qcow2", str(SIZE))
        qemu_io("s.qcow2", "write -P 77 0 3M", "write -P 78 5M 100k")
        qemu("convert", "-f", "qcow2", "-O", "raw", "s.qcow2", "before.raw")
        qemu("snapshot", "-c", "one", "s.qcow2")
        write_ours("s.qcow2", opts)
        listed = json.loads(ours("info", "--json", "s.qcow2").out)["snapshots"]
        assert [s["name"] for s in listed] == ["one"], listed
        qemu("snapshot", "-a", "one", "s.qcow2")
        qemu("compare", "-q", "-f", "raw", "-F", "qcow2", "before.raw", "s.qcow2")
        qemu("snapshot", "-d", "one", "s.qcow2")
        sound("s.qcow2")
        write_ours("s.qcow2", opts + "again")


def test_compressed_snapshots():
    for opts in ("compression_type=zlib", "compression_type=zstd"):
        with open("c.raw", "wb") as f:
            f.write(b"posada " * (SIZE // 7) + bytes(SIZE % 7))
        qemu("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", opts, "c.raw", "c.qcow2")
        qemu("snapshot", "-c", "one", "c.qcow2")
        write_ours("c.qcow2", opts)
        qemu("snapshot", "-a", "one", "c.qcow2")
        qemu("compare", "-q", "-f", "raw", "-F", "qcow2", "c.raw", "c.qcow2")


def dirty_bytes(image, bitmap):
    """What qemu finds set in a bitmap: by its NBD server's context."""
    server = "nbd.sock"
    good(run("qemu-nbd", "--fork", "-r", "-k", os.path.join(tmp.name, server), "-f", "qcow2", "-B", bitmap,
             "--pid-file=nbd.pid", image))
    try:
        r = qemu("map", "--output=json", "--image-opts",
                 f"driver=nbd,server.type=unix,server.path={server},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}")
        return {(e["start"], e["length"]) for e in json.loads(r.out) if not e["data"]}
    finally:
        end(int(open("nbd.pid").read()))


def test_bitmaps_follow_writes():
    qemu("create", "-q", "-f", "qcow2", "b.qcow2", str(SIZE))
    qemu("bitmap", "--add", "-g", "64k", "b.qcow2", "on")
    qemu("bitmap", "--add", "--disable", "-g", "64k", "b.qcow2", "off")
    qemu("create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "o.qcow2")
    qemu_io("o.qcow2", "write -P 1 1M 64k", "write -P 2 3M 128k")
    ours("commit", "-f", "qcow2", "o.qcow2")
    sound("b.qcow2")
    assert dirty_bytes("b.qcow2", "on") == {(1 << 20, 65536), (3 << 20, 131072)}
    assert dirty_bytes("b.qcow2", "off") == set()
    ours("bitmap", "--add", "b.qcow2", "mine")
    ours("bitmap", "--merge", "on", "b.qcow2", "mine")
    ours("bitmap", "--clear", "b.qcow2", "on")
    ours("bitmap", "--remove", "b.qcow2", "off")
    sound("b.qcow2")
    info = json.loads(qemu("info", "--output=json", "b.qcow2").out)["format-specific"]["data"]["bitmaps"]
    assert {(b["name"], tuple(b["flags"])) for b in info} == {("on", ("auto",)), ("mine", ("auto",))}, info
    assert dirty_bytes("b.qcow2", "mine") == {(1 << 20, 65536), (3 << 20, 131072)}
    assert dirty_bytes("b.qcow2", "on") == set()
    ours("resize", "b.qcow2", "+1M")
    sound("b.qcow2")
    assert dirty_bytes("b.qcow2", "mine") == {(1 << 20, 65536), (3 << 20, 131072)}


def align(size):
    return (size + 65535) // 65536 * 65536


def poke(image, offset, data):
    with open(image, "r+b") as f:
        f.seek(offset)
        f.write(data)


def peek(image, offset):
    with open(image, "rb") as f:
        f.seek(offset)
        return struct.unpack(">Q", f.read(8))[0]


def test_damage_is_repaired_for_qemu_too():
    for what in ("refcounts", "leak", "copied", "table", "dirty"):
        qemu("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "d.qcow2", str(SIZE))
        qemu_io("d.qcow2", "write -P 5 0 2M")
        qemu("convert", "-f", "qcow2", "-O", "raw", "d.qcow2", "want.raw")
        table, l1 = peek("d.qcow2", 48), peek("d.qcow2", 40)
        block = peek("d.qcow2", table)
        l2 = peek("d.qcow2", l1) & 0xfffffffffffe00
        if what == "refcounts":
            poke("d.qcow2", block + 10, b"\0" * 20)
        elif what == "leak":
            poke("d.qcow2", block + 2 * 60, b"\0\1" * 5)
        elif what == "copied":
            poke("d.qcow2", l2, struct.pack(">Q", peek("d.qcow2", l2) & ~(1 << 63)))
        elif what == "table":
            poke("d.qcow2", table, struct.pack(">Q", 0x12345))
        else:
            poke("d.qcow2", 79, b"\1")
            poke("d.qcow2", block, b"\0" * 200)
        r = run(POSADA, "disk", "check", "--repair=all", "-f", "qcow2", "d.qcow2", timeout=120)
        assert r.status == 0, (what, r)
        sound("d.qcow2")
        qemu("compare", "-q", "-f", "raw", "-F", "qcow2", "want.raw", "d.qcow2")
        write_ours("d.qcow2", what)


def test_a_count_that_is_too_high_is_a_leak():
    """So is the flag that is missing because of it: as after a snapshot whose deletion was broken off."""
    image = "leak.qcow2"
    qemu("create", "-q", "-f", "qcow2", image, str(SIZE))
    qemu_io(image, "write -P 1 0 256k")
    l1, table = peek(image, 40), peek(image, 48)
    l2, block = peek(image, l1) & 0xfffffffffffe00, peek(image, table)
    for i in range(2):
        entry = peek(image, l2 + 8 * i)
        poke(image, l2 + 8 * i, (entry & ~(1 << 63)).to_bytes(8, "big"))
        poke(image, block + 2 * ((entry & 0xfffffffffffe00) >> 16), b"\0\2")
    assert run("qemu-img", "check", "-f", "qcow2", image).status == 3
    r = run(POSADA, "disk", "check", image)
    assert r.status == 3 and "2 leaked" in r.out, r
    ours("check", "-r", "leaks", image)
    sound(image)


def test_snapshot_tables_may_be_large():
    """As large as qemu allows. 300 snapshots with names of 64 KiB."""
    image = "names.qcow2"
    qemu("create", "-q", "-f", "qcow2", image, "1M")
    size = os.path.getsize(image)
    entry = struct.pack(">QIHHIIQII", 0, 0, 1, 65000, 0, 0, 0, 0, 24) + struct.pack(">QQQ", 0, 1 << 20, 0) + b"1" + b"n" * 65000
    entry += bytes(-len(entry) % 8)
    with open(image, "r+b") as f:
        f.seek(align(size))
        f.write(entry * 300)
    poke(image, 60, struct.pack(">IQ", 300, align(size)))
    assert len(json.loads(ours("info", "--json", image).out)["snapshots"]) == 300


def test_resized_rebased_emptied():
    for opts in variants():
        qemu("create", "-q", "-f", "qcow2", "-o", opts, "r.qcow2", str(SIZE))
        qemu_io("r.qcow2", "write -P 9 0 8M")
        ours("resize", "r.qcow2", str(SIZE * 100))
        sound("r.qcow2")
        qemu_io("r.qcow2", f"read -P 0 {SIZE} 1M", "read -P 9 0 8M")
        ours("resize", "--shrink", "r.qcow2", str(SIZE // 2 + 512))
        sound("r.qcow2")
        assert os.stat("r.qcow2").st_blocks * 512 < 6 << 20, os.stat("r.qcow2")
        ours("resize", "r.qcow2", str(SIZE))
        qemu_io("r.qcow2", f"read -P 9 0 {SIZE // 2 + 512}", f"read -P 0 {SIZE // 2 + 512} {SIZE // 2 - 512}")
        qemu("create", "-q", "-f", "qcow2", "-o", opts, "-b", "r.qcow2", "-F", "qcow2", "t.qcow2")
        qemu_io("t.qcow2", "write -P 3 1M 1M")
        ours("rebase", "-b", "", "t.qcow2")
        os.rename("r.qcow2", "gone.qcow2")
        qemu_io("t.qcow2", "read -P 3 1M 1M", "read -P 9 0 1M")
        sound("t.qcow2")
        os.unlink("t.qcow2")
        os.unlink("gone.qcow2")


main(globals())
