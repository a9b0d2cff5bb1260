"""Encrypted QCOW2 images (LUKS) that qemu-img has made: read and written by Posada, then read and checked by qemu-img; and
encryption headers that lie."""
import os, random, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip, use_debian_python

use_debian_python("nbd")
try:
    import nbd
except ImportError:
    nbd = None

POSADA = os.path.abspath(sys.argv[1])
tmp = tempfile.TemporaryDirectory(prefix="posada-luks-")
os.chdir(tmp.name)
SIZE = 8 << 20
SECRET = "--object", "secret,id=s,file=key"
with open("key", "wb") as f:
    f.write(b"open sesame\n")  # the line's end is part of it, as for qemu
with open("source.raw", "wb") as f:
    f.write(random.Random(1).randbytes(3 << 20))
    f.truncate(SIZE)


def good(r):
    assert r.status == 0, r
    return r


def ours(verb, *args):
    return good(run(POSADA, "disk", verb, "--key-file", "key", *args, timeout=120))


def make(name, options=""):
    for _ in range(20):
        r = run("qemu-img", "convert", *SECRET, "-f", "raw", "-O", "qcow2", "-o",
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100" + options, "source.raw", name, timeout=120)
        if "accurate CPU usage" not in r.err:  # it times its own work, and refuses to guess
            break
    good(r)


def read_by_qemu(name, ret):
    good(run("qemu-img", "convert", *SECRET, "--image-opts", "-O", "raw",
             f"driver=qcow2,encrypt.key-secret=s,file.filename={name}", ret, timeout=120))
    good(run("qemu-img", "check", "-q", *SECRET, "--image-opts", f"driver=qcow2,encrypt.key-secret=s,file.filename={name}"))
    return open(ret, "rb").read()


class Served:
    def __init__(self, name):
        if not nbd:
            skip("python3-libnbd is not installed")
        self.p = subprocess.Popen([POSADA, "disk", "serve", "--key-file", "key", "-k", tmp.name + "/socket", name],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.p.stdout.readline(), self.p.communicate()

    def __enter__(self):
        self.h = nbd.NBD()
        self.h.connect_unix(tmp.name + "/socket")
        return self.h

    def __exit__(self, *why):
        self.h.shutdown()
        _, err = self.p.communicate(timeout=60)
        assert self.p.returncode == 0, err


def write_at_random(h, model, seed, count=150):
    r = random.Random(seed)
    for _ in range(count):
        n = r.choice((1, 100, 512, 4096, 5000, 65536, 200000, 1 << 20)) + r.randrange(3)
        at = r.randrange(SIZE - n)
        if r.randrange(2):
            at = at // 4096 * 4096
        kind = r.randrange(8)
        if kind == 0:
            h.zero(n, at)
            model[at:at + n] = bytes(n)
        elif kind == 1:
            got = h.pread(n, at)
            assert got == model[at:at + n], (at, n)
        elif kind == 2:
            h.flush()
        else:
            data = r.randbytes(n)
            h.pwrite(data, at)
            model[at:at + n] = data
    assert h.pread(SIZE, 0) == model


def test_images_of_qemu_are_read_and_written():
    for seed, options in enumerate(("", ",cluster_size=4k", ",extended_l2=on", ",encrypt.cipher-alg=aes-128",
                                    ",encrypt.hash-alg=sha1", ",encrypt.hash-alg=sha512,lazy_refcounts=on", ",compat=0.10")):
        name = f"{seed}.qcow2"
        make(name, options)
        ours("compare", "-f", "qcow2", "-F", "raw", name, "source.raw")
        model = bytearray(open("source.raw", "rb").read())
        with Served(name) as h:
            write_at_random(h, model, seed)
        assert read_by_qemu(name, "theirs.raw") == model, options
        good(run(POSADA, "disk", "check", name))  # needs no key
        os.unlink(name)


def test_what_is_on_the_host_is_encrypted():
    make("hidden.qcow2")
    with Served("hidden.qcow2") as h:
        h.pwrite(b"plain text " * 100000, 12345)
    assert b"plain text" not in open("hidden.qcow2", "rb").read()


def test_overlays_of_encrypted_images():
    make("base.qcow2")
    model = bytearray(open("source.raw", "rb").read())
    ours("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "over.qcow2")
    with Served("over.qcow2") as h:
        write_at_random(h, model, 77)
    ours("commit", "-q", "-f", "qcow2", "over.qcow2")
    assert read_by_qemu("base.qcow2", "theirs.raw") == model
    ours("resize", "-q", "base.qcow2", "+1M")
    assert read_by_qemu("base.qcow2", "theirs.raw") == model + bytes(1 << 20)


def test_without_the_key():
    make("locked.qcow2")
    with open("wrong", "wb") as f:
        f.write(b"open sesame")
    for key in (), ("--key-file", "wrong"), ("--key-file", "absent"), ("--key-file", "/dev/zero"), ("--key-file", "."):
        r = run(POSADA, "disk", "convert", *key, "-O", "raw", "locked.qcow2", "no.raw")
        assert r.status == 125 and r.err.count("\n") == 1 and ("encrypted" in r.err or "key file" in r.err), r
    r = run(POSADA, "run", "--kernel", "key", "--disk", "locked.qcow2,key-file=wrong")
    assert r.status == 125 and "does not hold its passphrase" in r.err, r
    r = good(run(POSADA, "disk", "info", "locked.qcow2"))
    assert "encrypted: yes" in r.out, r
    assert not os.path.exists("no.raw")


def test_encryption_headers_that_lie():
    make("good.qcow2")
    data = open("good.qcow2", "rb").read()
    luks = data.find(b"LUKS\xba\xbe")
    assert luks > 0
    def refused(*edits):
        changed = bytearray(data)
        for at, new in edits:
            changed[luks + at:luks + at + len(new)] = new
        with open("bad.qcow2", "wb") as f:
            f.write(changed)
        r = run(POSADA, "disk", "map", "--key-file", "key", "bad.qcow2", timeout=60)
        assert r.status == 125 and r.err.count("\n") == 1, (edits, r)
    ones = b"\xff\xff\xff\xff"
    for at in 0, 6, 8, 40, 72, 108, 112, 132, 164, 208, 212, 216, 248, 252:
        for new in ones, b"\x1b[2J":
            if data[luks + at:luks + at + 4] != new:
                refused((at, new))
    slot = data[luks + 208:luks + 256]
    refused(*((208 + 48 * i, slot[:4] + ones + slot[8:]) for i in range(8)))  # years of work
    refused(*((208 + 48 * i, slot[:40] + ones + slot[44:]) for i in range(8)))
    refused(*((208 + 48 * i, slot[:44] + ones) for i in range(8)))
    r = random.Random(8)
    for _ in range(15):
        changed = bytearray(data)
        for _ in range(r.randrange(1, 4)):
            changed[luks + r.randrange(592)] = r.randrange(256)
        with open("bad.qcow2", "wb") as f:
            f.write(changed)
        r2 = run(POSADA, "disk", "map", "--key-file", "key", "bad.qcow2", timeout=60)
        assert r2.status in (0, 125) and (r2.status == 0 or r2.err.count("\n") == 1), r2  # salts of other slots do not matter


main(globals(), sys.argv[2:])
