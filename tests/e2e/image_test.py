"""posada image with a mirror made up here: packages of a few bytes, so that nothing is downloaded or booted."""
import glob, gzip, hashlib, io, json, os, shutil, signal, subprocess, sys, tarfile, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA = sys.argv[1]
KERNEL = "linux-image-6.1-riscv64"


def make_tar(files):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w:gz") as t:
        for name, data in files.items():
            info = tarfile.TarInfo("./" + name)
            info.size, info.mode = len(data), 0o755
            t.addfile(info, io.BytesIO(data))
    return buf.getvalue()


def make_deb(name, files):
    control = make_tar({"control": f"Package: {name}\nVersion: 1\nArchitecture: riscv64\n".encode()})
    out = b"!<arch>\n"
    for member, data in ("debian-binary", b"2.0\n"), ("control.tar.gz", control), ("data.tar.gz", make_tar(files)):
        out += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (member.encode(), 0, 0, 0, b"100644", len(data)) + data
        out += b"\n" * (len(data) % 2)
    return out


class Mirror:
    """A mirror and a data folder of their own, in a temporary folder."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="posada-test-")
        self.env = {"XDG_DATA_HOME": self.dir + "/data", "XDG_CACHE_HOME": self.dir + "/cache"}
        self.images = self.dir + "/data/posada/images"
        self.stanzas = ""
        self.add("linux-image-riscv64", {}, f"Depends: {KERNEL} (= 1)")
        self.add(KERNEL, {"boot/vmlinux-6.1-riscv64": b"kernel " * 20000})
        self.add("busybox-static", {"usr/bin/busybox": b"busybox"})
        self.publish()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def add(self, name, files, more="Priority: optional"):
        deb = make_deb(name, files)
        self.write(f"pool/{name}.deb", deb)
        self.stanzas += (f"Package: {name}\nVersion: 1\nArchitecture: riscv64\nFilename: pool/{name}.deb\n"
                         f"Size: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n{more}\n\n")

    def write(self, path, data):
        path = f"{self.dir}/mirror/{path}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    def publish(self, suite="trixie"):
        index = gzip.compress(self.stanzas.encode())
        self.write(f"dists/{suite}/main/binary-riscv64/Packages.gz", index)
        self.write(f"dists/{suite}/InRelease",
                   (f"Suite: x\nCodename: {suite}\nArchitectures: all riscv64\nSHA256:\n "
                    f"{hashlib.sha256(index).hexdigest()} {len(index)} main/binary-riscv64/Packages.gz\n").encode())

    def command(self, *args):
        return [POSADA, "image", *args]

    def build(self, *args, spec="tiny"):
        return run(*self.command("build", spec, "--mirror", f"file://{self.dir}/mirror", "--unsigned", *args),
                   env=self.env)

    def leftovers(self):
        return [p for p in glob.glob(self.images + "/.*tmp*") + glob.glob(self.dir + "/cache/posada/*/*.part")]


def one_sentence(r):
    lines = [line for line in r.err.strip().splitlines() if not line.startswith("[")]  # without progress
    return r.status not in (0, None) and len(lines) == 1 and lines[0].startswith("posada image ")


def test_build_list_info_remove():
    with Mirror() as m:
        r = m.build()
        assert r.status == 0, r
        info = json.loads(run(*m.command("info", "tiny", "--json"), env=m.env).out)
        assert open(info["kernel"], "rb").read() == b"kernel " * 20000
        assert b"busybox" in open(info["initrd"], "rb").read() and info["kernel_release"] == "6.1-riscv64", info
        assert run(*m.command("list", "-q"), env=m.env).out == "tiny\n"
        assert run(*m.command("remove", "tiny"), env=m.env).status == 0
        assert run(*m.command("list", "-q"), env=m.env).out == ""
        assert one_sentence(run(*m.command("remove", "tiny"), env=m.env))
        assert not m.leftovers()


def test_kernel_in_several_packages():
    with Mirror() as m:
        m.stanzas = ""
        m.add("linux-image-riscv64", {}, "Depends: linux-base-x, linux-image-7.2-riscv64 (= 1)")
        m.add("linux-image-7.2-riscv64", {}, "Depends: linux-modules-7.2-riscv64, linux-binary-7.2-riscv64 (= 1)")
        m.add("linux-binary-7.2-riscv64", {"usr/lib/modules/7.2-riscv64/vmlinuz": b"seven"})
        m.add("linux-modules-7.2-riscv64", {"usr/lib/modules/7.2-riscv64/kernel/a/unneeded.ko.xz": b"x"})
        m.add("busybox-static", {"usr/bin/busybox": b"busybox"})
        m.publish()
        assert m.build().status == 0
        info = json.loads(run(*m.command("info", "tiny", "--json"), env=m.env).out)
        assert open(info["kernel"], "rb").read() == b"seven" and info["kernel_release"] == "7.2-riscv64", info


def test_second_build_needs_no_mirror_and_rebuild_replaces():
    with Mirror() as m:
        assert m.build().status == 0
        inode = os.stat(m.images + "/tiny-trixie-riscv64").st_ino
        shutil.rmtree(m.dir + "/mirror/pool")
        assert m.build().status == 0  # there already
        assert os.stat(m.images + "/tiny-trixie-riscv64").st_ino == inode
        assert m.build("--rebuild").status == 0  # from the cache
        assert os.stat(m.images + "/tiny-trixie-riscv64").st_ino != inode
        assert not m.leftovers()


def test_bad_mirrors_are_one_sentence_and_leave_nothing():
    def missing_package(m): os.unlink(f"{m.dir}/mirror/pool/busybox-static.deb")
    def changed_package(m): m.write("pool/busybox-static.deb", make_deb("busybox-static", {"usr/bin/busybox": b"trojan!"}))
    def truncated_index(m): m.write("dists/trixie/main/binary-riscv64/Packages.gz", b"")
    def no_suite(m): shutil.rmtree(m.dir + "/mirror/dists")
    def other_suite(m): m.publish("trixie"); m.write("dists/trixie/InRelease", b"Suite: sid\nCodename: sid\nSHA256:\n x\n")
    def no_kernel(m): m.stanzas = m.stanzas.replace("linux-image-riscv64", "linux-image-s390x"); m.publish()
    def damaged_package(m):
        m.stanzas = ""
        m.add("linux-image-riscv64", {}, f"Depends: {KERNEL}")
        m.add("busybox-static", {"usr/bin/busybox": b"b"})
        deb = make_deb(KERNEL, {"boot/vmlinux-6.1-riscv64": os.urandom(50000)})[:-20000]
        m.write("pool/k.deb", deb)
        m.stanzas += (f"Package: {KERNEL}\nVersion: 1\nFilename: pool/k.deb\nSize: {len(deb)}\n"
                      f"SHA256: {hashlib.sha256(deb).hexdigest()}\n\n")
        m.publish()
    for spoil in missing_package, changed_package, truncated_index, no_suite, other_suite, no_kernel, damaged_package:
        with Mirror() as m:
            spoil(m)
            r = m.build()
            assert one_sentence(r), (spoil.__name__, r)
            assert not m.leftovers() and not glob.glob(m.images + "/.*") and run(*m.command("list", "-q"), env=m.env).out == "", spoil.__name__


def test_unsigned_mirror_is_refused_unless_allowed():
    if not shutil.which("gpgv") or not os.path.exists("/usr/share/keyrings/debian-archive-keyring.gpg"):
        skip("no gpgv or no Debian keys")
    with Mirror() as m:
        r = run(*m.command("build", "tiny", "--mirror", f"file://{m.dir}/mirror"), env=m.env)
        assert one_sentence(r) and "signature" in r.err, r


def test_missing_gpgv_names_the_remedy():
    with Mirror() as m:
        r = run(*m.command("build", "tiny", "--mirror", f"file://{m.dir}/mirror"),
                env=dict(m.env, PATH="/nonexistent"))
        assert one_sentence(r) and "apt install" in r.err, r


def test_two_builders_make_one_image():
    with Mirror() as m:
        results = []
        threads = [threading.Thread(target=lambda: results.append(m.build())) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert [r.status for r in results] == [0] * 4, results
        assert os.listdir(m.images).count("tiny-trixie-riscv64") == 1 and not m.leftovers()


def test_killed_builder_leaves_nothing_that_stays():
    with Mirror() as m:
        argv = m.command("build", "tiny", "--mirror", f"file://{m.dir}/mirror", "--unsigned")
        for delay in 0.01, 0.02, 0.04, 0.08:
            p = subprocess.Popen(argv, env=dict(os.environ, **m.env), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(delay)
            p.send_signal(signal.SIGKILL)
            p.wait()
            shutil.rmtree(m.images + "/tiny-trixie-riscv64", ignore_errors=True)
        os.makedirs(m.images + "/.tiny-trixie-riscv64.tmp-1/x")  # as a killed one leaves it
        os.makedirs(m.dir + "/cache/posada/pool", exist_ok=True)
        open(m.dir + "/cache/posada/pool/abc.deb.999999999.part", "w").close()
        assert m.build().status == 0
        assert not m.leftovers(), m.leftovers()


main(globals(), sys.argv[2:])
