"""Exporting and importing instances: Posada's own form and OVA, with independent readers and makers (tar, sha256sum,
qemu-img), through pipes, damaged and hostile. No guest runs."""
import glob, hashlib, io, json, os, subprocess, sys, tarfile, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA = sys.argv[1]
OVF = """<?xml version="1.0"?>
<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <ovf:References><ovf:File ovf:href="disk1.vmdk" ovf:id="file1" ovf:size="%d"/></ovf:References>
 <ovf:DiskSection><ovf:Info/><ovf:Disk ovf:capacity="64" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="d1"
  ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
 </ovf:DiskSection>
 <ovf:VirtualSystem ovf:id="x"><ovf:Name>My appliance, 2nd</ovf:Name><ovf:VirtualHardwareSection>
  <ovf:Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></ovf:Item>
  <ovf:Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType>
   <rasd:VirtualQuantity>512</rasd:VirtualQuantity></ovf:Item>
  <ovf:Item><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></ovf:Item>
 </ovf:VirtualHardwareSection></ovf:VirtualSystem>
</ovf:Envelope>
"""


class Home:
    """A store of its own, with raw.img, a disk with something on it, and appliance.ova, which holds it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.dir = self.folder.name
        self.env = {"XDG_DATA_HOME": self.dir + "/data", "XDG_RUNTIME_DIR": self.dir + "/run", "HOME": self.dir}
        os.mkdir(self.dir + "/run")
        with open(self / "raw.img", "wb") as f:
            f.truncate(64 << 20)
            for i in range(40):
                f.seek(i * 1500 * 1024)
                f.write(hashlib.sha256(b"%d" % i).digest() * 3000)
        self.tool("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", self / "raw.img",
                  self / "disk1.vmdk")
        self.make_ova("appliance.ova")

    def __truediv__(self, name):
        return self.dir + "/" + name

    def make_ova(self, name, algorithm="sha256", spoil=b"", last=False):
        disk = open(self / "disk1.vmdk", "rb").read()
        ovf = (OVF % len(disk)).encode()
        sums = "".join(f"{algorithm.upper()}({n})= {hashlib.new(algorithm, d).hexdigest()}\n"
                       for n, d in (("box.ovf", ovf), ("disk1.vmdk", disk + spoil))).encode()
        members = [("box.ovf", ovf), ("disk1.vmdk", disk)]
        members.insert(2 if last else 1, ("box.mf", sums))
        self.make_tar(name, members)

    def make_tar(self, name, members):
        with tarfile.open(self / name, "w", format=tarfile.USTAR_FORMAT) as t:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))

    def members(self, name):
        raw = subprocess.run(["zstd", "-dcq", self / name], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(raw)) as t:
            return [(m.name, t.extractfile(m).read()) for m in t]

    def tool(self, *argv):
        r = run(*argv)
        assert r.status == 0, r
        return r.out

    def posada(self, *args, **kw):
        return run(POSADA, *args, env=self.env, **kw)

    def ok(self, *args, **kw):
        r = self.posada(*args, **kw)
        assert r.status == 0, (args, r)
        return r.out

    def refused(self, *args, word):
        before = self.names()
        r = self.posada(*args)
        assert r.status == 125 and r.out == "" and r.err.count("\n") == 1 and word in r.err, (args, word, r)
        assert self.names() == before and not self.rests(), (args, self.rests())

    def names(self):
        return [i["name"] for i in json.loads(self.ok("list", "--json"))]

    def rests(self):
        return [p for p in glob.glob(self / "data/posada/instances/.*") if not p.endswith((".lock", ".run"))]

    def layer(self, name):
        tree = json.load(open(self / f"data/posada/instances/{name}/tree.json"))
        files = glob.glob(self / f"data/posada/instances/{name}/disks/*.qcow2")
        assert len(files) == 1, (tree, files)
        return files[0]

    def holds_disk(self, name):
        self.tool("qemu-img", "check", "-q", self.layer(name))
        self.tool("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", self / "raw.img", self.layer(name))


home = None


def need():
    global home
    home = home or Home()
    return home


def test_ova_of_another_maker_becomes_an_instance():
    h = need()
    assert h.ok("import", h / "appliance.ova") == "My-appliance-2nd\n"
    info = json.loads(h.ok("info", "My-appliance-2nd", "--json"))
    text = open(h / "data/posada/instances/My-appliance-2nd/instance.yaml").read()
    assert "cpus: 2\n" in text and "memory: 512M\n" in text and "amd64" in text and "net: none\n" in text, text
    assert "firmware: \"seabios\"\n" in text and "disk-bus: ahci\n" in text, text
    assert info["name"] == "My-appliance-2nd", info
    h.holds_disk("My-appliance-2nd")
    for name, how in ("sha1.ova", {"algorithm": "sha1"}), ("last.ova", {"last": True}):
        h.make_ova(name, **how)
        assert h.ok("import", "--name", name[:-4] + "-box", h / name) == name[:-4] + "-box\n"
        h.holds_disk(name[:-4] + "-box")


def test_ova_with_a_wrong_sum_is_refused():
    h = need()
    h.make_ova("bad.ova", spoil=b"!")
    h.refused("import", "--name", "bad", h / "bad.ova", word="checksum of 'disk1.vmdk'")


def test_bundle_comes_back_through_a_pipe():
    h = need()
    h.ok("import", "--name", "a", h / "appliance.ova")
    writer = subprocess.Popen([POSADA, "export", "a", "-"], stdout=subprocess.PIPE, env=dict(os.environ, **h.env))
    reader = subprocess.run([POSADA, "import", "--name", "b", "-"], stdin=writer.stdout, capture_output=True, text=True,
                            env=dict(os.environ, **h.env), timeout=60)
    assert writer.wait() == 0 and reader.returncode == 0 and reader.stdout == "b\n", reader
    h.holds_disk("b")
    a, b = (dict(line.split(": ") for line in open(h / f"data/posada/instances/{n}/instance.yaml") if ": " in line)
            for n in "ab")
    assert a.pop("uuid") != b.pop("uuid") and a.pop("mac") != b.pop("mac") and a == b, (a, b)


def test_identity_can_be_kept():
    h = need()
    h.ok("import", "--name", "c", h / "appliance.ova")
    h.ok("export", "c", h / "c.posada")
    h.ok("delete", "c")
    assert h.ok("import", "--keep-identity", h / "c.posada") == "c\n"
    text = dict(h.members("c.posada"))["instance.yaml"].decode()
    assert open(h / "data/posada/instances/c/instance.yaml").read() == text
    h.refused("import", h / "c.posada", word="there is an instance 'c' already")


def test_bundle_can_be_checked_by_hand():
    h = need()
    h.ok("import", "--name", "d", h / "appliance.ova")
    h.ok("export", "d", h / "d.posada")
    os.mkdir(h / "d")
    h.tool("tar", "-C", h / "d", "--zstd", "-xf", h / "d.posada")
    r = run("sha256sum", "-c", "--strict", "SHA256SUMS", cwd=h / "d")
    assert r.status == 0 and r.out.count("OK") == len(h.members("d.posada")) - 1, r
    disk, = glob.glob(h / "d/disks/*.qcow2")
    h.tool("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", h / "raw.img", disk)


def test_exported_ova_is_read_by_others():
    h = need()
    h.ok("import", "--name", "e", h / "appliance.ova")
    h.ok("export", "e", h / "e.ova")
    os.mkdir(h / "e")
    names = h.tool("tar", "-tf", h / "e.ova").split()
    assert names == ["e.ovf", "e.mf", "e-disk1.vmdk"], names
    h.tool("tar", "-C", h / "e", "-xf", h / "e.ova")
    sums = open(h / "e/e.mf").read().splitlines()
    for line in sums:
        name, want = line[len("SHA256("):].split(")= ")
        assert hashlib.sha256(open(h / f"e/{name}", "rb").read()).hexdigest() == want, line
    assert len(sums) == 2, sums
    h.tool("qemu-img", "compare", "-q", "-f", "raw", "-F", "vmdk", h / "raw.img", h / "e/e-disk1.vmdk")
    assert h.ok("import", "--name", "e2", h / "e.ova") == "e2\n"
    h.holds_disk("e2")
    assert h.ok("get", "e2", "firmware").strip() == "seabios" # a name: no file of the host


def test_files_are_not_overwritten():
    h = need()
    h.ok("import", "--name", "f", h / "appliance.ova")
    open(h / "f.posada", "w").write("mine")
    h.refused("export", "f", h / "f.posada", word="is there already; --force")
    assert open(h / "f.posada").read() == "mine"
    h.ok("export", "--force", "f", h / "f.posada")
    h.ok("import", "--name", "f2", h / "f.posada")
    assert not glob.glob(h / "*.part")


def test_files_of_the_host_are_not_taken_over():
    h = need()
    h.ok("import", "--name", "g", h / "appliance.ova")
    h.ok("export", "--plain", "g", h / "g.tar")
    members = tar_members(h / "g.tar")
    members["instance.yaml"] = members["instance.yaml"].replace(b'firmware: "seabios"\n', b"")
    members["instance.yaml"] += b"volumes:\n  - /:/host\ndisks:\n  - /etc/shadow,format=raw\nfirmware: /etc/passwd\n"
    h.make_tar("evil.posada", resum(members))
    r = h.posada("import", "--name", "g2", h / "evil.posada")
    assert r.status == 0 and "'volumes' is not taken over" in r.err and "'disks' is" in r.err and "/etc/passwd" in r.err, r
    text = open(h / "data/posada/instances/g2/instance.yaml").read()
    assert "/etc" not in text and "/host" not in text, text


def tar_members(path):
    with tarfile.open(path) as t:
        return {m.name: t.extractfile(m).read() for m in t}


def resum(members):
    """The members with a list of sums that is right."""
    members = {n: d for n, d in members.items() if n != "SHA256SUMS"}
    members["SHA256SUMS"] = "".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in members.items()).encode()
    return list(members.items())


def test_layers_name_nothing_but_what_the_tree_says():
    h = need()
    h.ok("import", "--name", "i", h / "appliance.ova")
    h.ok("export", "--plain", "i", h / "i.tar")
    members = tar_members(h / "i.tar")
    disk, = (n for n in members if n.startswith("disks/"))
    open(h / "secret.raw", "wb").write(b"secret" * 1000 + b"\0" * 138240)
    h.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", h / "secret.raw", "-F", "raw", h / "over.qcow2")
    h.make_tar("over.posada", resum(dict(members, **{disk: open(h / "over.qcow2", "rb").read()})))
    r = h.posada("import", "--name", "i2", h / "over.posada")
    if r.status == 0:
        assert "secret" not in h.tool("qemu-img", "info", h.layer("i2"))
        assert b"secret" not in subprocess.run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "if=" + h.layer("i2"),
                                                "of=" + h / "out.raw"], capture_output=True).stdout
        assert b"secret" not in open(h / "out.raw", "rb").read()
    h.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + h / "secret.raw,data_file_raw=on",
           h / "data.qcow2", "140K")
    h.make_tar("data.posada", resum(dict(members, **{disk: open(h / "data.qcow2", "rb").read()})))
    h.refused("import", "--name", "i3", h / "data.posada", word="data")


def test_damaged_and_cut_files_are_refused():
    h = need()
    h.ok("import", "--name", "j", h / "appliance.ova")
    h.ok("export", "--plain", "j", h / "j.tar")
    whole = open(h / "j.tar", "rb").read()
    for cut in 0, 100, 600, 1500, 5000, 100_000, len(whole) // 2, len(whole) - 12_000:
        open(h / "cut.posada", "wb").write(whole[:cut])
        h.refused("import", "--name", "j2", h / "cut.posada", word="")
    for at in 3000, 50_000, len(whole) // 3, len(whole) // 2:
        bad = bytearray(whole)
        bad[at] ^= 1
        if bytes(bad) != whole:
            open(h / "bad.posada", "wb").write(bad)
            r = h.posada("import", "--name", f"j-{at}", h / "bad.posada")
            if r.status:
                assert r.status == 125 and r.err.count("\n") == 1, (at, r)
            else:  # in the padding of tar
                h.holds_disk(f"j-{at}")
    members = tar_members(h / "j.tar")
    for name, change, word in (
            ("posada.json", b"{", "damaged"), ("posada.json", b'{"version":9,"name":"x"}', "newer"),
            ("instance.yaml", b"cpus: none\n", "cpus"), ("tree.json", b"[]", "tree"),
            ("disks/../../x", b"", "plain name"), ("disks/x.qcow2", b"", "no place"), ("extra", b"", "no place")):
        h.make_tar("bad.posada", resum(dict(members, **{name: change})))
        h.refused("import", "--name", "j3", h / "bad.posada", word=word)
    for member in members:
        h.make_tar("less.posada", resum({n: d for n, d in members.items() if n != member}))
        if member != "SHA256SUMS":
            h.refused("import", "--name", "j4", h / "less.posada", word="")
    h.make_tar("nosum.posada", [(n, d) for n, d in members.items() if n != "SHA256SUMS"])
    h.refused("import", "--name", "j5", h / "nosum.posada", word="cut off")


def test_killed_export_and_import_leave_nothing():
    h = need()
    h.ok("import", "--name", "k", h / "appliance.ova")
    h.ok("export", "k", h / "k.posada")
    for ms in range(0, 60, 4):
        p = subprocess.Popen([POSADA, "import", "--name", "k2", h / "k.posada"], env=dict(os.environ, **h.env),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            p.wait(ms / 1000)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        names = h.names()
        assert not h.rests(), h.rests()
        if "k2" in names:
            h.holds_disk("k2")
            h.ok("delete", "k2")


if __name__ == "__main__":
    main(globals(), sys.argv[2:])
