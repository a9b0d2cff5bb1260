"""A host with KVM, for tests where there is none: qemu-system-x86_64 without KVM emulates a processor with AMD's SVM,
a Debian kernel in it loads kvm-amd, and a script there runs posada from an initramfs. On a host with working KVM the
script is run directly.

    with packages and image cached:  out, status = host.run("posada run tiny --arch amd64 -- uname -m", seconds)
"""
import glob, gzip, json, os, re, shutil, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import skip

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev; mount -t tmpfs tmpfs /tmp
mkdir /dev/shm; mount -t tmpfs tmpfs /dev/shm
for m in irqbypass kvm kvm-amd; do insmod /modules/$m.ko || echo "nested: no module $m"; done
ip link set lo up
export HOME=/tmp PATH=/bin XDG_DATA_HOME=/tmp/data XDG_CACHE_HOME=/tmp/cache
echo NESTED-BEGIN
sh /script </dev/null 2>&1
echo "NESTED-STATUS $?"
poweroff -f
"""


class Cpio:
    """The "new ASCII" archive that kernels unpack."""

    def __init__(self, path):
        self.out, self.inode, self.dirs = gzip.open(path, "wb", 1), 0, set()

    def add(self, name, mode, data=b"", device=(0, 0)):
        parent = os.path.dirname(name)
        if parent and parent not in self.dirs:
            self.dirs.add(parent)
            self.add(parent, 0o40755)
        self.inode += 1
        name = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % f for f in fields)
        self.out.write(header + name + b"\0" * (-(len(header) + len(name)) % 4) + data + b"\0" * (-len(data) % 4))

    def file(self, name, path, mode=0o100755):
        with open(path, "rb") as f:
            self.add(name.lstrip("/"), mode, f.read())

    def close(self):
        self.add("TRAILER!!!", 0)
        self.out.close()


class Host:
    """Where posada runs with KVM."""

    def __init__(self, posada, work, source):
        self.posada, self.work, self.source = posada, work, source
        self.env = dict(os.environ, HOME=work, XDG_DATA_HOME=work + "/data", XDG_CACHE_HOME=work + "/cache")
        self.image = work + "/data/posada/images/tiny-trixie-amd64"
        os.makedirs(work, exist_ok=True)

    def has_kvm(self):
        r = subprocess.run([self.posada, "doctor", "--json"], env=self.env, capture_output=True, text=True)
        return any(c["check"] == "kvm" and c["status"] == "ok" for c in json.loads(r.stdout)["checks"])

    def _call(self, *argv, seconds=600):
        r = subprocess.run(argv, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
        if r.returncode and re.search(r"resolve|connect|network|reach|not found|no package mirror", r.stderr, re.I):
            skip("no package mirror: " + r.stderr.strip().splitlines()[-1])
        assert not r.returncode, r
        return r.stdout.strip()

    def need_image(self):
        """The guest: the image tiny, which needs no machine to be built."""
        if not os.path.exists(self.image + "/image"):
            self._call(self.posada, "image", "build", "tiny", "--arch", "amd64")

    def packages(self, *names):
        """The folder into which these packages of amd64 are unpacked, with what they depend on."""
        return self._call(self.source + "/bench/peers", "amd64", "bookworm", *names)

    def need_qemu(self):
        if not shutil.which("qemu-system-x86_64"):
            skip("no KVM here, and qemu-system-x86 is not installed, which would emulate a host that has it")
        self.root = self.packages("linux-image-cloud-amd64", "busybox-static")

    def _libraries(self):
        """Those it is linked with, those it loads when it needs them, and theirs."""
        known = dict(re.findall(r"^\s*(\S+) \(libc6,x86-64.*=> (\S+)$",
                                subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout, re.M))
        with open(self.posada, "rb") as f:
            names = {n.decode() for n in re.findall(rb"\0(lib[\w.+-]+\.so\.\d+)(?=\0)", f.read())}
        late = [known[n] for n in names if n in known]
        out = subprocess.run(["ldd", self.posada, *late], capture_output=True, text=True, check=True).stdout
        return sorted({*late, *re.findall(r"(/\S+)(?= \()", out)})

    def _initramfs(self, path, script, files):
        c = Cpio(path)
        for d in ("proc", "sys", "tmp", "dev"):
            c.dirs.add(d)
            c.add(d, 0o40755)
        c.add("dev/console", 0o20600, device=(5, 1))
        c.add("init", 0o100755, INIT.encode())
        c.add("script", 0o100644, script.encode())
        c.file("bin/busybox", self.root + "/bin/busybox")
        for m in ("irqbypass", "kvm", "kvm-amd"):
            c.file(f"modules/{m}.ko", glob.glob(f"{self.root}/lib/modules/*/kernel/**/{m}.ko", recursive=True)[0])
        stripped = self.work + "/posada"
        subprocess.run(["strip", "-o", stripped, self.posada], check=True)
        c.file("bin/posada", stripped)
        for lib in self._libraries():
            c.file(lib, lib)
        for f in os.listdir(self.image):
            c.file(f"tmp-image/{f}", f"{self.image}/{f}", 0o100644)
        for name, where in files.items():
            c.file(name, where)
        c.close()

    def run(self, script, seconds, cpus=1, files={}):
        """Run a shell script there: what it printed, and its status. @files are put at those names, below /files;
        where a name is absolute, there."""
        self.need_image()
        if self.has_kvm():
            return self._run_here(script, seconds, files)
        self.need_qemu()
        initramfs = self.work + "/initramfs.gz"
        script = ("mkdir -p $XDG_DATA_HOME/posada/images; "
                  "ln -s /tmp-image $XDG_DATA_HOME/posada/images/tiny-trixie-amd64; cd /tmp\n" + script)
        self._initramfs(initramfs, script, {k if k[0] == "/" else "files/" + k: v for k, v in files.items()})
        kernel = glob.glob(self.root + "/boot/vmlinuz-*")[0]
        argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "EPYC", "-m", "1024", "-smp", str(cpus),
                "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initramfs,
                "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check"]
        try:
            r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
            text = r.stdout
        except subprocess.TimeoutExpired as e:
            text = e.stdout or b""
        finally:
            os.unlink(initramfs)
        text = text.decode(errors="replace").replace("\r", "")
        with open(self.work + "/last.log", "w") as f:
            f.write(text)
        if "tcg_handle_interrupt: assertion failed" in text:
            skip("this QEMU ends when an emulated guest writes CR8 while an interrupt waits for it")
        begin = text.find("NESTED-BEGIN\n")
        assert begin >= 0, "the emulated host did not start: " + text[-2000:]
        status = re.search(r"^NESTED-STATUS (\d+)$", text, re.M)
        assert status, "the script did not end: " + text[-3000:]
        return text[begin + 13:status.start()], int(status[1])

    def _run_here(self, script, seconds, files):
        bin_dir = self.work + "/bin"
        os.makedirs(bin_dir, exist_ok=True)
        link = bin_dir + "/posada"
        if not os.path.islink(link):
            os.symlink(os.path.abspath(self.posada), link)
        for name, where in files.items():
            script = script.replace("/files/" + name, where)
        r = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace", timeout=seconds, cwd=self.work,
                           env=dict(self.env, PATH=bin_dir + ":" + os.environ["PATH"]))
        return r.stdout, r.returncode
