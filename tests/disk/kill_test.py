"""kill -9 at a random moment under load, and a file system that is full: what was flushed is there, and the image is sound.

  kill_test.py POSADA [--times N] [FORMAT...]"""
import os, random, shutil, signal, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip, use_debian_python

use_debian_python("nbd")
try:
    import nbd
except ImportError:
    nbd = None

POSADA = sys.argv[1]
TIMES = int(sys.argv[sys.argv.index("--times") + 1]) if "--times" in sys.argv else 4
FORMATS = [a for a in sys.argv[2:] if not a.startswith("--") and not a.isdigit()]
SIZE = 32 << 20
BLOCK = 4096
tmp = tempfile.TemporaryDirectory()


def formats():
    """All that can be created, as `posada disk create` says."""
    out = run(POSADA, "disk", "create", "-f", "no-such-format", tmp.name + "/x", "1M").err
    return FORMATS or out.strip().split("there are ")[1].split(", ")


def create(fmt, path, folder, chain=False):
    r = run(POSADA, "disk", "create", "-f", fmt, path, str(SIZE))
    assert r.status == 0, r


class Server:
    def __init__(self, fmt, path):
        self.socket = tmp.name + "/sock"
        self.p = subprocess.Popen([POSADA, "disk", "serve", "-f", fmt, "--persistent", "-k", self.socket, path],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if not self.p.stdout.readline():
            raise AssertionError(self.p.communicate()[1])

    def connect(self):
        h = nbd.NBD()
        h.connect_unix(self.socket)
        return h

    def kill(self):
        self.p.kill()
        self.p.communicate()

    def end(self):
        self.p.terminate()
        _, err = self.p.communicate(timeout=60)
        assert self.p.returncode == 0, (self.p.returncode, err)


def block(number, version):
    return (number.to_bytes(4, "little") + version.to_bytes(4, "little")) * (BLOCK // 8) if version else bytes(BLOCK)


class Model:
    """For each block the versions it may have: the flushed one and all after it."""

    def __init__(self):
        self.maybe = {}
        self.sure = {}
        self.version = 0

    def load(self, h, rng):
        """Random requests until the server dies."""
        try:
            while True:
                n = rng.randrange(1, 9)
                first = rng.randrange(min(SIZE // BLOCK - n, 2048 if rng.random() < 0.7 else 1 << 30))
                dice = rng.random()
                if dice < 0.7:
                    self.version += 1
                    for b in range(first, first + n):
                        self.maybe.setdefault(b, []).append(self.version)
                    h.pwrite(b"".join(block(b, self.version) for b in range(first, first + n)), first * BLOCK)
                elif dice < 0.8:
                    for b in range(first, first + n):
                        self.maybe.setdefault(b, []).append(0)
                    h.zero(n * BLOCK, first * BLOCK)
                else:
                    before = {b: v[-1] for b, v in self.maybe.items()}
                    h.flush()
                    self.sure.update(before)
                    self.maybe = {}
        except nbd.Error:
            pass

    def verify(self, h):
        for start in range(0, SIZE, 1 << 20):
            data = h.pread(1 << 20, start)
            for i in range(0, 1 << 20, BLOCK):
                b = (start + i) // BLOCK
                got = data[i:i + BLOCK]
                allowed = [self.sure.get(b, 0)] + self.maybe.get(b, [])
                for v in allowed:
                    if got == block(b, v):
                        self.sure[b] = v
                        break
                else:
                    # one request may be cut in two by the kill, at a sector
                    parts = {bytes(got[k:k + 512]) for k in range(0, BLOCK, 512)}
                    known = {block(b, v)[:512] for v in allowed}
                    assert parts <= known, f"block {b}: {bytes(got[:16])!r}, allowed versions {allowed}"
        self.maybe = {}


def check_sound(fmt, path):
    r = run(POSADA, "disk", "check", "-f", fmt, path)
    assert r.status in (0, 3, 63), r  # sound, leaks, nothing to check


def killed(fmt):
    if not nbd:
        skip("python3-libnbd is not installed")
    path = f"{tmp.name}/disk.{fmt}"
    rng = random.Random(fmt)
    for n in range(TIMES):
        if n % 10 == 0:
            if os.path.exists(path):
                os.unlink(path)
            create(fmt, path, tmp.name)
            model = Model()
        s = Server(fmt, path)
        h = s.connect()
        model.verify(h)
        t = threading.Thread(target=model.load, args=(h, rng))
        t.start()
        time.sleep(rng.uniform(0.02, 0.4))
        s.kill()
        t.join()
        check_sound(fmt, path)
        s = Server(fmt, path)
        h = s.connect()
        model.verify(h)
        h.shutdown()
        s.end()
        check_sound(fmt, path)


def full(fmt):
    """A guest's disk on a file system of 8 MiB."""
    if not nbd:
        skip("python3-libnbd is not installed")
    folder = tmp.name + "/full"
    os.makedirs(folder, exist_ok=True)
    r = run("mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", folder)
    if r.status:
        skip("cannot mount a tmpfs: " + r.err.strip())
    try:
        path = f"{folder}/disk.{fmt}"
        create(fmt, path, folder)
        s = Server(fmt, path)
        h = s.connect()
        done, refused = {}, 0
        for i in range(SIZE // 65536):  # more than fits
            data = i.to_bytes(4, "little") * 16384
            try:
                h.pwrite(data, i * 65536)
                h.flush()
                done[i] = data
            except nbd.Error as e:
                assert e.errno == "ENOSPC", e
                refused += 1
        assert done and refused, (len(done), refused)
        for i, data in done.items():
            assert h.pread(65536, i * 65536) == data, i
        assert run("mount", "-o", "remount,size=64M", folder).status == 0
        for i in range(SIZE // 65536):  # room was made: it goes on
            if i not in done:
                done[i] = i.to_bytes(4, "big") * 16384
                h.pwrite(done[i], i * 65536)
        h.flush()
        h.shutdown()
        s.end()
        check_sound(fmt, path)
        s = Server(fmt, path)
        h = s.connect()
        for i, data in done.items():
            assert h.pread(65536, i * 65536) == data, i
        h.shutdown()
        s.end()
    finally:
        run("umount", "-l", folder)


def test(kind, fmt):
    f = lambda: kind(fmt)
    f.__name__ = f"test_{kind.__name__}_{fmt}"
    return f


tests = [test(kind, fmt) for fmt in formats() for kind in (killed, full)]
main({t.__name__: t for t in tests})
