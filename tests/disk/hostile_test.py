"""Images made to harm, through every verb: each answer is a result or one clear sentence, soon and within little memory.

  hostile_test.py POSADA [--all] [TEST...]     --all: every verb with every file, a machine as well

What is allowed at the end of a command: status 0, 1 (compare), 2 and 3 (check: errors, leaks; its findings are lines), 63
(nothing to check) and 125 with one sentence. Never a signal, control characters, a time limit, or memory by a file's word."""
import os, re, resource, shutil, signal, struct, subprocess, sys, tempfile, threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run

ALL = "--all" in sys.argv
POSADA = os.path.abspath(sys.argv[1])
SECONDS = 120
MEMORY = 192 << 20  # resident; nothing here needs a tenth of it
tmp = tempfile.TemporaryDirectory(prefix="posada-hostile-")
os.chdir(tmp.name)
MB = 1 << 20


def be(width, *values):
    return b"".join(v.to_bytes(width, "big") for v in values)


def le(width, *values):
    return b"".join(v.to_bytes(width, "little") for v in values)


def changed(data, *edits):
    """@data with bytes put at places."""
    data = bytearray(data)
    for at, new in edits:
        data[at:at + len(new)] = new
    return bytes(data)


def save(name, data):
    with open(name, "wb") as f:
        f.write(data)


def good(fmt, *options):
    """An image of 4 MiB, one of them data, as bytes."""
    if not os.path.exists("source.raw"):
        save("source.raw", os.urandom(MB) + bytes(3 * MB))
    name = "good." + fmt
    r = run(POSADA, "disk", "convert", "-q", "--force", "-f", "raw", "-O", fmt, *options, "source.raw", name)
    assert r.status == 0, r
    return open(name, "rb").read()


class Verbs:
    """The commands for one file. Those that write get a copy of it in the same folder, so that its references stay."""

    def __init__(self, name):
        self.name = name

    def read(self):
        n = self.name
        yield "info", "--backing-chain", "--json", n
        yield "info", n
        yield "map", n
        yield "convert", "-q", "-O", "qcow2", n, "out/copy.qcow2"
        if ALL:
            yield "map", "--refs=none", n
            yield "check", n
            yield "compare", n, "source.raw"
            yield "measure", "-O", "qcow2", n
            yield "bench", "-c", "5", n
            yield "create", "-q", "-f", "qcow2", "-b", os.path.abspath(n), "-F", n.rpartition(".")[2], "out/over.qcow2"

    def write(self):
        n = self.name
        yield "check", "-r", "all", n
        yield "resize", n, "+1M"
        if ALL:
            yield "bench", "-w", "-c", "5", n
            yield "commit", n
            yield "merge", n
            yield "compact", n
            yield "rebase", "-b", "", n
            yield "rebase", "-u", "-b", "absent", "-F", "raw", n
            yield "bitmap", "--add", n, "b"


def limits():
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * MB, 64 * MB))  # a file of terabytes is the tester's problem
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error will do


def judge(name, argv):
    p = subprocess.Popen([POSADA, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         preexec_fn=limits)
    late = threading.Timer(SECONDS, p.kill)
    late.start()
    serves = argv[:2] == ("disk", "serve")
    if serves and p.stdout.readline():
        p.terminate()
    err = p.stderr.read().decode(errors="replace")
    p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    late.cancel()
    p.returncode = status = os.waitstatus_to_exitcode(status)
    p.stdout.close()
    p.stderr.close()
    told = (name, argv, status, err[:1000])
    findings = argv[1] == "check" and not re.search("^posada", err, re.M)
    assert status in (0, 1, 2, 3, 63, 125), told
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", err), told
    assert findings or status not in (2, 125) or err.startswith("posada ") and err.count("\n") == 1 or \
        argv[1] == "check" and err.splitlines()[-1].startswith("posada "), told
    assert usage.ru_maxrss * 1024 < MEMORY or "SAN_OPTIONS" in " ".join(os.environ), (told, usage.ru_maxrss)
    return status, err


def try_all(name):
    """Every verb with file @name."""
    results = []
    os.makedirs("out", exist_ok=True)
    for argv in Verbs(name).read():
        results.append(judge(name, ("disk", *argv)))
        for left in os.listdir("out"):
            os.unlink("out/" + left)
    if ALL:
        results.append(judge(name, ("disk", "serve", "-r", "-k", "out/socket", name)))
    if os.path.isfile(name) and not os.path.islink(name) and os.path.getsize(name) < 64 * MB:
        before = open(name, "rb").read()
        for argv in Verbs(name).write():
            judge(name, ("disk", *argv))
            save(name, before)
    return results


def try_files(files, refused=None):
    """@files: name to bytes. @refused: a pattern; those that are refused by every verb that reads content."""
    for name, data in files.items():
        save(name, data)
    for name in files:
        results = try_all(name)
        if refused and re.search(refused, name):
            assert results[0][0] == 125 and results[2][0] == 125 and results[3][0] == 125, (name, results)


def qcow2_over(backing, fmt=b"raw", data=None):
    """An overlay that names @backing, as bytes."""
    at = 400
    extension = be(4, 0xe2792aca, len(fmt)) + fmt + bytes(-len(fmt) % 8) if fmt else b""
    return changed(data or good("qcow2"), (8, be(8, at)), (16, be(4, len(backing))), (104, bytes(296)), (100, be(4, 104)),
                   (104, extension + bytes(8)), (at, backing))


def test_qcow2_backing_images():
    os.mkfifo("pipe")
    os.mkdir("folder")
    os.symlink("/etc/passwd", "link")
    os.symlink("circle", "circle")
    names = [b"/etc/passwd", b"../../../../etc/passwd", b"link", b"pipe", b"folder", b"/dev/zero", b"circle", b"nbd://127.0.0.1:1/x",
             b'json:{"driver":"file","filename":"/etc/passwd"}', b"absent", b"/proc/self/mem", b"/dev/stdin", b"x" * 900,
             b"folder/../../../etc/passwd", b"a\n\x1b[2J", b"\xff\xfe", b"a\x00b", b""]
    files = {f"back{i}.qcow2": qcow2_over(n) for i, n in enumerate(names) if n}
    files["back-noformat.qcow2"] = qcow2_over(b"source.raw", b"")
    files["back-badformat.qcow2"] = qcow2_over(b"source.raw", b"zzz\x1b")
    files["back-self.qcow2"] = qcow2_over(b"back-self.qcow2", b"qcow2")
    files["back-one.qcow2"] = qcow2_over(b"back-two.qcow2", b"qcow2")
    files["back-two.qcow2"] = qcow2_over(b"back-one.qcow2", b"qcow2")
    files["back-length.qcow2"] = changed(qcow2_over(b"a"), (16, be(4, 5000)))
    files["back-place.qcow2"] = changed(qcow2_over(b"a"), (8, be(8, 1 << 62)))
    try_files(files, "^back")  # every one of them
    # what would not fit into JSON is in it all the same: nobody is to believe that there is no reference
    r = run(POSADA, "disk", "info", "--json", "back15.qcow2")
    assert r.status == 0 and '"backing-filename": "\ufffd\ufffd"' in r.out, r
    r = run(POSADA, "disk", "info", "back14.qcow2")
    assert r.status == 0 and "backing image: a??[2J\n" in r.out, r
    save("deep0.qcow2", good("qcow2"))
    for i in range(1, 300):
        save(f"deep{i}.qcow2", qcow2_over(b"deep%d.qcow2" % (i - 1), b"qcow2", open("deep0.qcow2", "rb").read(MB // 4)))
    assert "more than 256 images" in judge("deep", ("disk", "map", "deep299.qcow2"))[1]


def test_qcow2_numbers():
    g = good("qcow2")
    l1 = struct.unpack(">Q", g[40:48])[0]
    l2 = struct.unpack(">Q", g[l1:l1 + 8])[0] & 0xfffffffffffe00
    top = 1 << 63
    cases = {
        "l1-size": [(36, be(4, 0xffffffff))], "l1-far": [(40, be(8, 1 << 60))], "l1-between": [(40, be(8, l1 + 8))],
        "l1-none": [(36, be(4, 0))], "l1-header": [(40, be(8, 0))], "refs-size": [(56, be(4, 0xffffffff))], "refs-none": [(48, be(8, 0))],
        "refs-far": [(48, be(8, 1 << 50))], "size-63": [(24, be(8, top))], "size-61": [(24, be(8, 1 << 61))],
        "size-40": [(24, be(8, 1 << 40))], "cluster-63": [(20, be(4, 63))], "cluster-8": [(20, be(4, 8))], "cluster-22": [(20, be(4, 22))],
        "version-9": [(4, be(4, 9))], "version-1": [(4, be(4, 1))], "feature": [(72, be(8, 1 << 40))],
        "data-file-nameless": [(72, be(8, 4))], "compression": [(72, be(8, 8)), (104, b"\x4d")], "header-long": [(100, be(4, 0xfffffff8))],
        "header-none": [(100, be(4, 0))], "refcount-bits": [(96, be(4, 60))], "snapshots": [(60, be(4, 0xffffffff)), (64, be(8, l1))],
        "snapshots-far": [(60, be(4, 3)), (64, be(8, 1 << 60))], "encrypted-1": [(32, be(4, 1))], "encrypted-2": [(32, be(4, 2))],
        "encrypted-9": [(32, be(4, 9))], "bitmaps": [(88, be(8, 1)), (112, be(4, 0x23852875, 24, 0xffffffff, 0) + be(8, 1 << 40, l1))],
    }
    damaged = {
        "mild-refs-on-l1": [(48, be(8, l1))], "mild-odd-size": [(24, be(8, 4 * MB + 1))], "mild-far": [(l2, be(8, top | 1 << 55))],
        "mild-header": [(l2, be(8, top))], "mild-between": [(l2, be(8, top | 0x51200))], "mild-l2-is-l1": [(l1, be(8, top | l1))],
        "mild-l2-far": [(l1, be(8, top | 1 << 54))], "mild-packed-far": [(l2, be(8, 1 << 62 | 1 << 52))],
        "mild-packed-junk": [(l2, be(8, 1 << 62 | 0x3f << 54 | 0x50000))], "mild-ones": [(l2, b"\xff" * 8)],
        "mild-corrupt": [(72, be(8, 2))], "mild-dirty": [(72, be(8, 1))], "mild-subclusters": [(72, be(8, 16))],
    }
    files = {n + ".qcow2": changed(g, *e) for n, e in {**cases, **damaged}.items()}
    for n in 0, 1, 4, 50, 103, 65536, len(g) // 2:
        files[f"mild-cut-{n}.qcow2"] = g[:n]
    try_files(files, "^(?!mild)")


def test_qcow2_data_files():
    names = b"/etc/shadow", b"../../../../etc/passwd", b"link2", b"absent", b"pipe2", b"/dev/zero", b"folder2", b"a\x1b[2J"
    os.mkfifo("pipe2")
    os.mkdir("folder2")
    os.symlink("/etc/passwd", "link2")
    good("qcow2", "-o", "data_file=good.data")
    g = open("good.qcow2", "rb").read()
    at = g.find(be(4, 0x44415441)[:4])
    files = {f"data{i}.qcow2": changed(g, (at, be(4, 0x44415441, len(n)) + n + bytes(-len(n) % 8) + bytes(8)))
             for i, n in enumerate(names)}
    try_files(files, "^data")


def test_vdi():
    g = good("vdi")
    table = struct.unpack("<I", g[340:344])[0]
    cases = {"blocks": (384, le(4, 0xffffffff)), "block-none": (376, le(4, 0)), "block-large": (376, le(4, 1 << 31)), "type-9": (76, le(4, 9)),
             "type-4": (76, le(4, 4)), "table": (340, le(4, 0xfffffe00)), "data": (344, le(4, 0)), "size": (368, le(8, 1 << 62)),
             "mild-used": (388, le(4, 0xffffffff)), "mild-header": (72, le(4, 0xffffffff)), "mild-far": (table, le(4, 0x7fffffff)),
             "mild-twice": (table + 4, le(4, 0)), "mild-data": (344, le(4, table))}
    files = {n + ".vdi": changed(g, e) for n, e in cases.items()}
    files.update({f"mild-cut-{n}.vdi": g[:n] for n in (64, 100, 511, 1 << 20)})
    try_files(files, "^(?!mild)")


def vmdk(extents, more="", parent="ffffffff", kind="monolithicFlat"):
    return (f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID={parent}\ncreateType="{kind}"\n{more}\n'
            f'# Extent description\n{extents}\n\n# The Disk Data Base\n#DDB\nddb.adapterType="ide"\n').encode()


def test_vmdk_descriptors():
    os.mkfifo("pipe3")
    os.mkdir("folder3")
    os.symlink("/etc/passwd", "link3")
    good("raw")
    names = "/etc/passwd", "../../../../etc/passwd", "link3", "text-own.vmdk", "pipe3", "/dev/zero", "folder3", "a\x1b[2Jb", "absent"
    files = {f"text{i}.vmdk": vmdk(f'RW 2048 FLAT "{n}" 0') for i, n in enumerate(names) if n != "text-own.vmdk"}
    files["text-own.vmdk"] = vmdk('RW 2048 SPARSE "text-own.vmdk"', kind="monolithicSparse")
    files["text-many.vmdk"] = vmdk("\n".join(f'RW 1 FLAT "source.raw" {i}' for i in range(20000)), kind="twoGbMaxExtentFlat")
    files["text-holes.vmdk"] = vmdk("RW 1 ZERO\n" * 50000, kind="custom")
    files["text-large.vmdk"] = vmdk('RW 18446744073709551615 FLAT "source.raw" 0')
    files["text-sum.vmdk"] = vmdk('RW 9223372036854775807 FLAT "source.raw" 9223372036854775807\n' * 3)
    files["text-below.vmdk"] = vmdk('RW -1 FLAT "source.raw" -1')
    files["text-none.vmdk"] = vmdk("")
    files["text-device.vmdk"] = vmdk('RW 2048 VMFSRDM "/dev/vda" 0')
    files["mild-short.vmdk"] = vmdk('RW 99999999 FLAT "source.raw" 0')
    for i, (name, parent) in enumerate((("/etc/passwd", "12345678"), ("mild-parent1.vmdk", "fffffffe"), ("absent.vmdk", "12345678"))):
        files[f"mild-parent{i}.vmdk"] = vmdk("RW 2048 ZERO", f'parentFileNameHint="{name}"', parent)
    try_files(files, "^text")


def test_vmdk_numbers():
    g = good("vmdk")
    tables = struct.unpack("<Q", g[56:64])[0] * 512
    table = struct.unpack("<I", g[tables:tables + 4])[0] * 512
    first = g[table:table + 4]
    cases = {"capacity": (12, le(8, 1 << 62)), "grain-none": (20, le(8, 0)), "grain-1": (20, le(8, 1)), "grain-large": (20, le(8, 1 << 40)),
             "text-far": (28, le(8, 1 << 60)), "text-large": (36, le(8, 1 << 60)), "entries": (44, le(4, 0xffffffff)),
             "entries-none": (44, le(4, 0)), "tables-far": (56, le(8, 1 << 60)), "tables-none": (56, le(8, 0)), "version": (4, le(4, 77)),
             "flags": (8, le(4, 0xffffffff)), "mild-table-far": (tables, le(4, 0xffffffff)), "mild-far": (table, le(4, 0xfffffff0)),
             "mild-twice": (table + 4, first), "mild-header": (table + 4, le(4, 2))}
    files = {n + ".vmdk": changed(g, e) for n, e in cases.items()}
    files.update({f"mild-cut-{n}.vmdk": g[:n] for n in (4, 512, 0x10000)})
    g = good("vmdk", "-o", "subformat=streamOptimized")
    files["mild-stream-cut.vmdk"] = g[:-1000]
    files["mild-stream-junk.vmdk"] = changed(g, (70000, os.urandom(64)))
    try_files(files, "^(?!mild)")


def vhd_sum(data, at, size, place):
    data = changed(data, (at + place, bytes(4)))
    return changed(data, (at + place, be(4, ~sum(data[at:at + size]) & 0xffffffff)))


def vhd(g, *edits):
    """With right checksums."""
    data = vhd_sum(vhd_sum(changed(g, *edits), 0, 512, 64), 512, 1024, 36)
    return data[:-512] + data[:512]


def test_vhd():
    g = good("vhd")
    table = struct.unpack(">Q", g[528:536])[0]
    cases = {"size": (48, be(8, 1 << 62)), "size-none": (48, be(8, 0)), "type-9": (60, be(4, 9)), "header-far": (16, be(8, 1 << 60)),
             "table-far": (528, be(8, 1 << 60)), "block-none": (544, be(4, 0)), "block-3": (544, be(4, 3)), "block-large": (544, be(4, 1 << 31)),
             "mild-type-4": (60, be(4, 4)), "mild-odd": (48, be(8, 4097)), "mild-entries": (540, be(4, 0xffffffff)),
             "mild-far": (table, be(4, 0xfffffff0)), "mild-header": (table, be(4, 0)), "mild-twice": (table + 4, g[table:table + 4])}
    files = {n + ".vhd": vhd(g, e) for n, e in cases.items()}
    files.update({"mild-cut.vhd": g[:600], "mild-end.vhd": g[:-512], "mild-sum.vhd": changed(g, (48, be(8, 4096)))})
    for i, (path, code) in enumerate((("..\\..\\..\\..\\etc\\passwd", b"W2ru"), ("C:\\x\\parent.vhd", b"W2ku"), ("parent2.vhd", b"W2ru"),
                                      ("/etc/passwd", b"W2ru"), ("good.vhd", b"W2ru"), ("a\x1b[2J\nb", b"W2ru"))):
        text = path.encode("utf-16-le")
        body = g[:-512] + text + bytes(-len(text) % 512) + g[:512]
        files[f"parent{i}.vhd"] = vhd(body, (60, be(4, 4)), (576, path.encode("utf-16-be")), (1088, code + be(4, 512, len(text), 0) +
                                      be(8, len(g) - 512)))
    try_files(files, "^(?!mild)")


def test_vhdx():
    g = good("vhdx")
    metadata = g.find(b"metadata")
    regions = g.find(b"regi")
    files = {f"mild-region{at}.vhdx": changed(g, (regions + at, le(4, 0xffffffff))) for at in (4, 8, 16, 32, 40)}
    files.update({f"mild-log{at}.vhdx": changed(g, (0x10000 + at, le(4, 0xffffffff)), (0x20000 + at, le(4, 0xffffffff)))
                  for at in (8, 64, 68, 72)})
    files.update({f"mild-metadata{at}.vhdx": changed(g, (metadata + at, le(2, 0xffff))) for at in (10, 32, 48, 52)})
    files.update({f"mild-item{at}.vhdx": changed(g, (metadata + 0x10000 + at, b"\xf0" + b"\xff" * 7)) for at in range(0, 48, 8)})
    files.update({f"mild-cut-{n}.vhdx": g[:n] for n in (8, 0x20000, 0x200000)})
    try_files(files)


def test_files_that_are_none():
    good("qcow2")
    os.mkfifo("pipe4")
    os.mkdir("folder4")
    os.symlink("circle4", "circle4")
    shutil.copy("good.qcow2", "disguise.img")
    shutil.copy("good.qcow2", "new\nline.qcow2")
    save("777", b"x" * 777)
    save("1", b"x")
    for name in "pipe4", "folder4", "circle4", "/dev/zero", "/dev/null", "/dev/tty", "absent4", "disguise.img":
        assert all(status in (2, 125) for status, _ in try_all(name)), name  # compare: 2
    for name in "new\nline.qcow2", "777", "1":
        try_all(name)


def test_a_machine_takes_no_bad_disk():
    save("kernel", b"")
    save("escape.qcow2", qcow2_over(b"/etc/passwd"))
    save("cut.vdi", good("vdi")[:100])
    save("extent.vmdk", vmdk('RW 2048 FLAT "/etc/passwd" 0'))
    save("own.qcow2", qcow2_over(b"own.qcow2", b"qcow2"))
    shutil.copy("good.vdi", "guess.img")
    for name in "escape.qcow2", "cut.vdi", "extent.vmdk", "own.qcow2", "/dev/zero", "guess.img", "absent5":
        for options in "", ",readonly=on", ",snapshot=on":
            status, err = judge(name, ("run", "--kernel", "kernel", "--disk", name + options))
            assert status == 125 and name in err and "kernel" not in err, (name, err)


patterns = [a for a in sys.argv[2:] if a != "--all"]
main(globals(), patterns)
