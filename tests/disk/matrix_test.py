"""Disk images between Posada and others: what we write, independent readers read, and the other way round.

Each format and variant is made from one disk with data, written zeroes, holes and odd edges. Readers: qemu-img (compare
and check), 7-Zip, and libyal's libqcow, libvmdk and libvhdi. Then chains of overlays, and images that name files which
they must not.
"""
import hashlib, json, os, random, re, shutil, struct, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip, use_debian_python

use_debian_python("pyqcow")
POSADA = os.path.abspath(sys.argv[1])
tmp = tempfile.TemporaryDirectory(prefix="posada-matrix-")
os.chdir(tmp.name)  # qemu-img looks for a data file where it runs, not where the image is
SIZE = (9 << 20) + 7 * 512  # no multiple of any cluster
DEPTHS = 1, 10, 50

# Ours: format, options, convert options. Theirs: what qemu-img calls the format, and its options.
OURS = [
    ("raw", "", ""), ("raw", "preallocation=full", ""),
    ("qcow2", "", ""), ("qcow2", "compat=0.10", ""), ("qcow2", "cluster_size=512", ""), ("qcow2", "cluster_size=2M", ""),
    ("qcow2", "extended_l2=on", ""), ("qcow2", "lazy_refcounts=on", ""), ("qcow2", "refcount_bits=1", ""),
    ("qcow2", "refcount_bits=64", ""), ("qcow2", "", "-c"), ("qcow2", "compression_type=zstd", "-c"),
    ("qcow2", "compat=0.10", "-c"), ("qcow2", "extended_l2=on", "-c"), ("qcow2", "cluster_size=2M", "-c"),
    ("qcow2", "extended_l2=on,cluster_size=16k", ""), ("qcow2", "preallocation=metadata", ""), ("qcow2", "preallocation=full", ""),
    ("qcow2", "data_file=%s.data", ""), ("qcow2", "data_file=%s.data,data_file_raw=on", ""),
    ("vdi", "", ""), ("vdi", "static=on", ""),
    ("vmdk", "", ""), ("vmdk", "subformat=monolithicFlat", ""), ("vmdk", "subformat=twoGbMaxExtentSparse", ""),
    ("vmdk", "subformat=twoGbMaxExtentFlat", ""), ("vmdk", "subformat=streamOptimized", ""),
    ("vmdk", "zeroed_grain=on", ""),
    ("vhd", "", ""), ("vhd", "subformat=fixed", ""),
    ("vhdx", "", ""), ("vhdx", "subformat=fixed", ""), ("vhdx", "block_size=32M", ""), ("vhdx", "block_size=1M", ""),
]
THEIRS = OURS[2:-1] + [("vhd", "force_size=on", ""), ("vhd", "subformat=fixed,force_size=on", ""),
                       ("vhdx", "block_size=2M,log_size=2M", "")]
QEMU = {"vhd": "vpc"}
ZIP_TYPES = {"qcow2": "QCOW", "vdi": "VDI", "vmdk": "VMDK", "vhd": "VHD", "vhdx": "VHDX"}


def path(name):
    return os.path.join(tmp.name, name)


def posada(*args, **kw):
    return run(POSADA, "disk", *args, timeout=120, **kw)


def good(r):
    assert r.status == 0, r
    return r


def ours(*args):
    return good(posada(*args))


def qemu(*args):
    return good(run("qemu-img", *args, timeout=120, cwd=tmp.name))  # where it puts data files


def options(text, name):
    text = text.replace("%s", os.path.basename(name))
    return ["-o", text] if text else []


def known_formats():
    return set(re.findall(r"\w+", posada("create", "-f", "nosuch", "x", "1M").err.partition("there are")[2]))


FORMATS = known_formats()


def fill(file, size, seed):
    """Data, text, written zeroes and holes, in runs that begin and end at sectors."""
    r = random.Random(seed)
    with open(file, "r+b" if os.path.exists(file) else "w+b") as f:
        f.truncate(size)
        at = 0
        while at < size:
            n = min(size - at, r.choice((512, 4096, 65536, 300000, 900000)) // 512 * 512 * r.randrange(1, 3))
            f.seek(at)
            kind = r.randrange(5)
            if kind == 0:
                f.write(r.randbytes(n))
            elif kind == 1:
                f.write((b"all work and no play %d\n" % at * (n // 20))[:n])
            elif kind == 2:
                f.write(bytes(n))
            at += n  # else: as it was
    return file


def digest(file, size):
    """Of the first @size bytes, zeroes beyond the end."""
    h = hashlib.sha256()
    with open(file, "rb") as f:
        left = size
        while left:
            data = f.read(min(left, 1 << 20)) or bytes(min(left, 1 << 20))
            h.update(data)
            left -= len(data)
    return h.hexdigest()


source = fill(path("source.raw"), SIZE, 1)
SOURCE_DIGEST = digest(source, SIZE)
with open(source, "rb") as f:
    DATA = sum(4096 for block in iter(lambda: f.read(4096), b"") if block.count(0) != len(block))
assert DATA < SIZE - (3 << 20)


def label(variant):
    return "-".join(re.findall(r"\w+", " ".join(variant).replace("%s", "")))


def read_by_7zip(fmt, file):
    out = path("7zip.raw")
    with open(out, "wb") as f:
        r = subprocess.run(["7zz", "e", "-so", "-t" + ZIP_TYPES[fmt], file], stdout=f, stderr=subprocess.PIPE,
                           timeout=60)
    assert r.returncode == 0, (file, r.stderr[-500:])
    assert digest(out, SIZE) == SOURCE_DIGEST, f"7-Zip reads something else from {file}"


def read_by_libyal(fmt, file):
    """libqcow, libvmdk, libvhdi."""
    if fmt == "qcow2":
        import pyqcow
        image = pyqcow.file()
    elif fmt == "vmdk":
        import pyvmdk
        image = pyvmdk.handle()
    else:
        import pyvhdi
        image = pyvhdi.file()
    image.open(file)
    if fmt == "vmdk":
        image.open_extent_data_files()
    h = hashlib.sha256()
    left = SIZE
    while left:
        data = image.read_buffer(min(left, 1 << 20))
        assert data, f"libyal's {file} ends {left} bytes early"
        h.update(data)
        left -= len(data)
    image.close()
    assert h.hexdigest() == SOURCE_DIGEST, f"libyal reads something else from {file}"


def libyal_knows(variant):
    fmt, opts, flags = variant
    if fmt == "qcow2":  # version 3 with features, and zstd, are beyond it
        return not re.search("extended_l2|data_file|zstd|lazy|refcount_bits|cluster_size=(512|2M)", opts)
    return fmt in ("vmdk", "vhd", "vhdx")


def zip_knows(variant):
    fmt, opts, flags = variant
    if fmt == "qcow2":
        return not re.search("extended_l2|data_file|zstd|refcount_bits|cluster_size=512", opts)
    # 7-Zip 22 opens only VHDX of whole mebibytes, also of qemu's: see below
    return fmt in ZIP_TYPES and fmt != "vhdx" and "Extent" not in opts and "Flat" not in opts


def check_ours(variant):
    fmt, opts, flags = variant
    name = path(label(variant) + "." + fmt)
    q = QEMU.get(fmt, fmt)
    ours("convert", "-f", "raw", "-O", fmt, *options(opts, name), *flags.split(), source, name)
    ours("compare", "-f", "raw", "-F", fmt, source, name)
    qemu("compare", "-f", "raw", "-F", q, source, name)
    if fmt in ("qcow2", "vdi", "vhdx") or (fmt == "vmdk" and "Flat" not in opts):
        qemu("check", "-f", q, name)
        ours("check", "-f", fmt, name)
    info = json.loads(ours("info", "--json", "-f", fmt, name).out)
    theirs = json.loads(qemu("info", "--output=json", "-f", q, name).out)
    assert info["virtual-size"] == SIZE and theirs["virtual-size"] >= SIZE, (info, theirs)
    assert info.get("cluster-size") == theirs.get("cluster-size"), (info, theirs)
    if zip_knows(variant):
        read_by_7zip(fmt, name)
    if libyal_knows(variant):
        read_by_libyal(fmt, name)
    if not re.search("static|fixed|Flat|full|raw=on", opts):  # holes and zeroes take no space
        used = os.stat(name).st_blocks * 512
        assert used < DATA + (8 << 20 if "2M" in opts else 2 << 20), (used, DATA)


def test_vhdx_of_whole_mebibytes_is_read_by_7zip():
    need("vhdx")
    size = 12 << 20
    raw, name, out = fill(path("whole.raw"), size, 3), path("whole.vhdx"), path("whole.out")
    ours("convert", "-q", "-f", "raw", "-O", "vhdx", raw, name)
    with open(out, "wb") as f:
        subprocess.run(["7zz", "e", "-so", "-tVHDX", name], stdout=f, check=True, timeout=60)
    assert digest(out, size) == digest(raw, size) and os.path.getsize(out) == size


def check_theirs(variant):
    fmt, opts, flags = variant
    name = path("q-" + label(variant) + "." + fmt)
    q = QEMU.get(fmt, fmt)
    qemu("convert", "-f", "raw", "-O", q, *options(opts, name), *flags.split(), source, name)
    ours("compare", "-f", "raw", "-F", fmt, source, name)
    if fmt != "raw":
        ours("compare", source, name)  # known by its beginning
    check = posada("check", "-f", fmt, name)
    assert check.status in ((0, 63) if fmt in ("vhd", "vmdk", "vdi", "vhdx") else (0,)), check
    back = path("back.raw")
    ours("convert", "--force", "-f", fmt, "-O", "raw", name, back)
    assert digest(back, SIZE) == SOURCE_DIGEST


def chain_states(steps, resized=True):
    """The disk after each step: one raw file that changes. @resized: some overlays are larger or smaller than what is below them,
    and what a smaller one has cut off is not to come back in a larger one."""
    r = random.Random(5)
    state = path("state.raw")
    if os.path.exists(state):
        os.unlink(state)
    size = (2 << 20) + 512
    fill(state, size, 100)
    yield state
    for step in range(steps):
        if resized and step % 9 == 4:
            size += r.randrange(1, 300) * 512
        elif resized and step % 9 == 2:
            size -= r.randrange(1, 300) * 512
        with open(state, "r+b") as f:
            f.truncate(size)
            for _ in range(r.randrange(1, 5)):
                at = r.randrange(size // 512) * 512
                n = min(size - at, r.choice((512, 1024, 4096, 65536, 200000 // 512 * 512)))
                f.seek(at)
                f.write(bytes(n) if r.randrange(3) == 0 else r.randbytes(n))
        yield state


def check_chain(fmt, opts="", resized=True):
    """Overlays that hold partial clusters, zeroes over data, and more or less than what is below them."""
    below = None
    for depth, state in enumerate(chain_states(max(DEPTHS), resized)):
        name = path(f"{fmt}-{depth}.{fmt}")
        backing = ["-B", os.path.basename(below), "-F", fmt] if below else []
        ours("convert", "-q", "-f", "raw", "-O", fmt, *options(opts, name), *backing, state, name)
        if depth in DEPTHS:
            ours("compare", "-s", "-f", "raw", "-F", fmt, state, name)
            yield depth, state, name
        below = name


def remove_chain(fmt):
    for file in os.listdir(tmp.name):
        if re.fullmatch(rf"{fmt}-\d+\.{fmt}", file):
            os.unlink(path(file))


def test_qcow2_chains_are_read_by_qemu():
    need("qcow2")
    for opts in "", "extended_l2=on,cluster_size=128k":
        for depth, state, name in check_chain("qcow2", opts):
            qemu("compare", "-f", "raw", "-F", "qcow2", state, name)
            qemu("check", "-f", "qcow2", name)
        remove_chain("qcow2")


def test_vmdk_chains_are_read_by_qemu():
    need("vmdk")
    for depth, state, name in check_chain("vmdk"):
        qemu("compare", "-f", "raw", "-F", "vmdk", state, name)
    remove_chain("vmdk")


def test_vdi_vhd_and_vhdx_chains():
    """qemu does not know differencing images of these formats."""
    for fmt in "vdi", "vhd", "vhdx":
        if fmt in FORMATS:
            for depth, state, name in check_chain(fmt):
                pass
            remove_chain(fmt)


def libyal_image(fmt, name):
    if fmt == "vmdk":
        import pyvmdk
        image = pyvmdk.handle()
        image.open(name)
        image.open_extent_data_files()
        return image
    import pyvhdi
    image = pyvhdi.file()
    image.open(name)
    return image


def check_chain_by_libyal(fmt):
    """It wants all layers of one size. And libqcow is no such reader: it reads something else in qemu's overlays, too."""
    for depth, state, name in check_chain(fmt, resized=False):
        layers = []
        for d in range(depth, -1, -1):
            layers.append(libyal_image(fmt, path(f"{fmt}-{d}.{fmt}")))
            if d < depth:
                layers[-2].set_parent(layers[-1])
        with open(state, "rb") as f:
            want = f.read()
        got = layers[0].read_buffer(len(want))
        assert got == want, f"libyal reads something else at depth {depth}"
        for image in layers:
            image.close()
    remove_chain(fmt)


def test_vhd_chains_are_read_by_libvhdi():
    need("vhd")
    check_chain_by_libyal("vhd")


def test_vhdx_chains_are_read_by_libvhdi():
    need("vhdx")
    check_chain_by_libyal("vhdx")


def test_vmdk_chains_are_read_by_libvmdk():
    need("vmdk")
    check_chain_by_libyal("vmdk")


def qemu_chain(fmt):
    """A chain that qemu made: overlays written by qemu-io. Yields its names."""
    r = random.Random(9)
    below = path(f"q-0.{fmt}")
    qemu("convert", "-f", "raw", "-O", fmt, fill(path("q.raw"), 2 << 20, 33), below)
    size = 2 << 20
    for depth in range(1, max(DEPTHS) + 1):
        name = path(f"q-{depth}.{fmt}")
        if fmt == "qcow2":
            size += {3: 3 * 65536, 5: -2 * 65536}.get(depth % 7, 0)
        qemu("create", "-q", "-f", fmt, "-b", os.path.basename(below), "-F", fmt, name,
             *([str(size)] if fmt == "qcow2" else []))
        commands = []
        for _ in range(r.randrange(1, 4)):
            at = r.randrange(size // 512) * 512
            n = min(size - at, r.choice((512, 4096, 65536, 200192)))
            word = r.choice(("write -P %d" % r.randrange(1, 255), "write -z", "write -z -u"))
            if fmt == "vmdk" and "-z" in word:  # whole grains only, and only in some variants
                word = "write -P 0"
            commands += ["-c", f"{word} {at} {n}"]
        good(run("qemu-io", "-f", fmt, *commands, name))
        yield depth, name
        below = name


def check_qemu_chain(fmt):
    for depth, name in qemu_chain(fmt):
        if depth in DEPTHS:
            flat, mine = path("flat.raw"), path("mine.raw")
            qemu("convert", "-f", fmt, "-O", "raw", name, flat)
            ours("compare", "-s", "-f", "raw", "-F", fmt, flat, name)
            ours("convert", "--force", "-f", fmt, "-O", "raw", name, mine)
            assert digest(flat, os.path.getsize(flat)) == digest(mine, os.path.getsize(mine))


def test_qemus_qcow2_chains_are_read():
    need("qcow2")
    check_qemu_chain("qcow2")


def test_qemus_vmdk_chains_are_read():
    need("vmdk")
    check_qemu_chain("vmdk")


def need(fmt):
    if fmt not in FORMATS:
        skip(f"{fmt} is not built in")


def sha_of_disk(name, fmt):
    out = path("sum.raw")
    ours("convert", "--force", "-f", fmt, "-O", "raw", name, out)
    return digest(out, os.path.getsize(out)), os.path.getsize(out)


def small_chain(fmt, depth):
    for d, state in enumerate(chain_states(depth)):
        name = path(f"{fmt}-{d}.{fmt}")
        backing = ["-B", f"{fmt}-{d - 1}.{fmt}", "-F", fmt] if d else []
        ours("convert", "-q", "--force", "-f", "raw", "-O", fmt, *backing, state, name)
        yield name


def test_rebase_commit_merge_and_compact_keep_what_is_shown():
    tested = 0
    for fmt in sorted(FORMATS - {"raw"}):
        if "backing" not in posada("create", "-f", fmt, "-o", "help").out and fmt not in ("qcow2", "vmdk", "vdi", "vhd", "vhdx"):
            continue
        for action in ("commit", "merge-up", "merge-base", "merge-into", "rebase-none", "rebase-lower", "compact"):
            names = list(small_chain(fmt, 6))
            top, size = names[6], None
            want = sha_of_disk(top, fmt)
            below = {n: sha_of_disk(n, fmt) for n in names[:3]}
            r = {
                "commit": lambda: posada("commit", "-f", fmt, top),
                "merge-up": lambda: posada("merge", "-f", fmt, top),
                "merge-base": lambda: posada("merge", "-f", fmt, top, "--base", f"{fmt}-2.{fmt}", "-F", fmt),
                "merge-into": lambda: posada("merge", "-f", fmt, top, "--into", names[2]),
                "rebase-none": lambda: posada("rebase", "-f", fmt, "-b", "", top),
                "rebase-lower": lambda: posada("rebase", "-f", fmt, "-b", f"{fmt}-1.{fmt}", "-F", fmt, top),
                "compact": lambda: posada("compact", "-f", fmt, top),
            }[action]()
            assert r.status == 0, (fmt, action, r)
            assert sha_of_disk(top, fmt) == want, (fmt, action)
            if action == "commit":
                assert sha_of_disk(names[5], fmt) == want, (fmt, action)
            elif action == "merge-into":
                assert sha_of_disk(names[2], fmt) == want, (fmt, action)
            else:
                assert {n: sha_of_disk(n, fmt) for n in names[:3]} == below, (fmt, action)
            if action in ("merge-up", "rebase-none"):
                for n in names[:6]:
                    os.unlink(n)
                assert sha_of_disk(top, fmt) == want, (fmt, action)
            if fmt == "qcow2":
                qemu("check", "-f", fmt, top)
            tested += 1
    if not tested:
        skip("no format with backing images is built in")


def test_resized_disks_are_read_by_qemu():
    for fmt in sorted(FORMATS):
        name = path("resize." + fmt)
        ours("convert", "-q", "-f", "raw", "-O", fmt, source, name)
        r = posada("resize", "-f", fmt, name, "+3M")
        if r.status and "cannot be resized" in r.err:
            continue
        good(r)
        qemu("compare", "-f", "raw", "-F", QEMU.get(fmt, fmt), source, name)
        assert json.loads(ours("info", "--json", "-f", fmt, name).out)["virtual-size"] == SIZE + (3 << 20)
        assert posada("resize", "-f", fmt, name, "-4M").status == 125
        ours("compare", "-f", "raw", "-F", fmt, source, name)
        r = posada("resize", "--shrink", "-f", fmt, name, "1M")
        if r.status == 0:
            want = path("1M.raw")
            with open(source, "rb") as f, open(want, "wb") as g:
                g.write(f.read(1 << 20))
            qemu("compare", "-f", "raw", "-F", QEMU.get(fmt, fmt), want, name)
            ours("resize", "-q", "-f", fmt, name, "2M")  # what was cut off does not come back
            ours("compare", "-f", "raw", "-F", fmt, want, name)
        os.unlink(name)


def test_round_trip_through_all_formats():
    at = source
    last = "raw"
    for fmt in ("qcow2", "vmdk", "vdi", "vhd", "vhdx"):
        if fmt in FORMATS:
            name = path("trip." + fmt)
            ours("convert", "-q", "-f", last, "-O", fmt, at, name)
            at, last = name, fmt
    ours("convert", "-q", "-f", last, "-O", "raw", at, path("trip.raw"))
    assert os.path.getsize(path("trip.raw")) == SIZE
    assert digest(path("trip.raw"), SIZE) == SOURCE_DIGEST


def refused(what, *args):
    r = posada(*args)
    assert r.status == 125 and r.out == "" and r.err.count("\n") == 1 and what in r.err, (args, r)


def test_references_that_are_not_allowed_are_refused():
    need("qcow2")
    folder = path("hostile")
    os.makedirs(folder, exist_ok=True)
    out = path("stolen.raw")
    inside = os.path.join(folder, "inside.qcow2")
    evil = os.path.join(folder, "evil.qcow2")
    ours("convert", "-q", "-f", "raw", "-O", "qcow2", source, inside)

    def name_backing(backing, fmt="raw"):
        qemu("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", fmt, evil, "1M")

    name_backing("/etc/passwd")
    refused("outside of its own folder", "convert", "-f", "qcow2", "-O", "raw", evil, out)
    refused("outside of its own folder", "info", "--backing-chain", evil)
    refused("outside of its own folder", "map", evil)
    refused("not allowed here", "map", "--refs=none", evil)
    ours("info", evil)  # what it names can be looked at
    ours("convert", "-q", "--refs=any", "-f", "qcow2", "-O", "raw", evil, out)  # the user trusts it
    os.unlink(out)
    name_backing("../../../../../../../etc/passwd")
    refused("outside of its own folder", "convert", "-f", "qcow2", "-O", "raw", evil, out)
    if not os.path.islink(os.path.join(folder, "link")):
        os.symlink("/etc/passwd", os.path.join(folder, "link"))
    name_backing("link")
    refused("outside of its own folder", "convert", "-f", "qcow2", "-O", "raw", evil, out)
    name_backing("inside.qcow2", "qcow2")
    ours("convert", "-q", "-f", "qcow2", "-O", "raw", evil, out)
    os.unlink(out)
    name_backing(inside, "qcow2")  # absolute, but in the folder
    ours("convert", "-q", "-f", "qcow2", "-O", "raw", evil, out)
    os.unlink(out)

    # without its format: the header extension 0xe2792aca is renamed to one that nobody knows
    name_backing("inside.qcow2", "qcow2")
    data = open(evil, "rb").read()
    assert data.count(b"\xe2\x79\x2a\xca") == 1
    with open(evil, "wb") as f:
        f.write(data.replace(b"\xe2\x79\x2a\xca", b"\xe2\x79\x2a\x00"))
    refused("format", "convert", "-f", "qcow2", "-O", "raw", evil, out)

    name_backing("evil.qcow2", "qcow2")  # its own backing image
    refused("its own backing image", "convert", "-f", "qcow2", "-O", "raw", evil, out)
    other = os.path.join(folder, "other.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-u", "-b", "evil.qcow2", "-F", "qcow2", other, "1M")
    name_backing("other.qcow2", "qcow2")
    refused("its own backing image", "convert", "-f", "qcow2", "-O", "raw", evil, out)

    name_backing("absent.qcow2", "qcow2")
    refused("absent.qcow2", "convert", "-f", "qcow2", "-O", "raw", evil, out)
    assert not os.path.exists(out)


def test_vmdk_extents_elsewhere_are_refused():
    need("vmdk")
    folder = path("hostile-vmdk")
    os.makedirs(folder, exist_ok=True)
    evil = os.path.join(folder, "evil.vmdk")
    qemu("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", evil, "1M")
    text = open(evil, "rb").read()
    for victim in b"/etc/passwd", b"../../../../../../etc/passwd":
        assert b"evil-flat.vmdk" in text
        with open(evil, "wb") as f:
            f.write(text.replace(b"evil-flat.vmdk", victim))
        refused("outside of its own folder", "convert", "-f", "vmdk", "-O", "raw", evil, path("stolen.raw"))
    assert not os.path.exists(path("stolen.raw"))


def test_nothing_is_overwritten_and_nothing_half_made_stays():
    folder = path("whole")
    os.makedirs(folder)
    target = os.path.join(folder, "t.raw")
    ours("convert", "-q", "-f", "raw", source, target)
    refused("--force replaces it", "convert", "-f", "raw", source, target)
    refused("--force replaces it", "create", target, "1M")
    small = os.path.join(folder, "small")
    ours("create", "-q", "-f", "raw", small, "1M")
    refused("smaller", "convert", "-n", "-f", "raw", "-O", "raw", source, small)
    # a source that cannot be read to its end: the file is cut while the map still names it
    p = subprocess.Popen([POSADA, "disk", "convert", "-m1", "-f", "raw", "/dev/zero", os.path.join(folder, "z")],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert p.wait(20) == 125, p.stderr.read()
    assert sorted(os.listdir(folder)) == ["small", "t.raw"], os.listdir(folder)


def test_interrupt_leaves_nothing():
    folder = path("interrupt")
    os.makedirs(folder)
    big = os.path.join(folder, "big")
    with open(big, "wb") as f:
        f.truncate(64 << 30)
        f.write(b"x" * (64 << 20))
    # one page of data in each 128 KiB: long enough to be interrupted
    with open(big, "r+b") as f:
        for i in range(20000):
            f.seek(i << 17)
            f.write(b"y")
    p = subprocess.Popen([POSADA, "disk", "convert", "-m1", "-f", "raw", big, os.path.join(folder, "t")],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while len(os.listdir(folder)) == 1 and p.poll() is None:
        pass
    p.send_signal(2)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == 125 and err.endswith("cancelled\n"), (p.returncode, err)
    assert os.listdir(folder) == ["big"], os.listdir(folder)
    os.unlink(big)


def test_json_has_qemus_keys():
    need("qcow2")
    name, over = path("keys.qcow2"), path("over.qcow2")
    ours("convert", "-q", "-f", "raw", "-O", "qcow2", source, name)
    ours("create", "-q", "-f", "qcow2", "-b", "keys.qcow2", "-F", "qcow2", over)

    def keys(*args):
        mine, theirs = json.loads(ours(*args, "--output=json", over).out), json.loads(qemu(*args, "--output=json", over).out)
        if isinstance(mine, list):
            mine, theirs = mine[0], theirs[0]
        missing = set(theirs) - set(mine)
        assert not missing, (args, missing)
        return mine, theirs

    for key in "virtual-size", "format", "cluster-size", "backing-filename", "backing-filename-format", "dirty-flag":
        mine, theirs = keys("info")
        assert mine[key] == theirs[key], (key, mine, theirs)
    keys("info", "--backing-chain")
    mine, theirs = keys("map")
    mine, theirs = (json.loads(f(*a).out) for f, a in
                    ((ours, ("map", "--json", name)), (qemu, ("map", "--output=json", name))))
    def flat(extents):  # as runs of equal meaning
        runs = []
        for e in extents:
            key = e["data"], e["depth"], e["start"] - e["offset"] if e["data"] else None
            if runs and runs[-1][0] == key:
                runs[-1][1] += e["length"]
            else:
                runs.append([key, e["length"]])
        return runs
    assert [r[1] for r in flat(mine) if r[0][0]] and sum(r[1] for r in flat(mine)) == SIZE
    assert {r[0] for r in flat(theirs)} == {r[0] for r in flat(mine)}
    mine, theirs = (json.loads(f(*a).out) for f, a in
                    ((ours, ("check", "--json", name)), (qemu, ("check", "--output=json", name))))
    for key in "image-end-offset", "total-clusters", "allocated-clusters", "check-errors":
        assert mine[key] == theirs[key], (key, mine, theirs)
    mine, theirs = (json.loads(f(*a).out) for f, a in
                    ((ours, ("measure", "--json", "-O", "qcow2", source)),
                     (qemu, ("measure", "--output=json", "-O", "qcow2", source))))
    assert mine["fully-allocated"] == theirs["fully-allocated"], (mine, theirs)
    assert os.path.getsize(name) <= mine["required"], (mine, os.path.getsize(name))


def test_statuses_of_compare():
    other = path("other.raw")
    shutil.copy(source, other)
    with open(other, "r+b") as f:
        f.seek(5000000)
        f.write(b"!")
    assert posada("compare", source, source + "-absent").status == 2
    r = posada("compare", "--json", "-f", "raw", "-F", "raw", source, other)
    assert r.status == 1 and json.loads(r.out) == {"equal": False, "offset": 5000000}, r
    with open(other, "r+b") as f:
        f.seek(5000000)
        with open(source, "rb") as s:
            s.seek(5000000)
            f.write(s.read(1))
        f.truncate(SIZE + 512)
    assert posada("compare", "-f", "raw", "-F", "raw", source, other).status == 0
    assert posada("compare", "-s", "-f", "raw", "-F", "raw", source, other).status == 1


def add_variants():
    for variant in OURS:
        if variant[0] in FORMATS:
            globals()["test_ours_" + label(variant)] = lambda v=variant: check_ours(v)
    for variant in THEIRS:
        if variant[0] in FORMATS:
            globals()["test_theirs_" + label(variant)] = lambda v=variant: check_theirs(v)


if __name__ == "__main__":
    add_variants()
    main(globals(), sys.argv[2:])
