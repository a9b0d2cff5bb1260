"""posada disk serve against other people's NBD clients: nbdinfo, nbdcopy, qemu-img, libnbd."""
import hashlib, json, os, random, shutil, signal, socket, struct, subprocess, sys, tempfile, threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import end, main, run, skip, use_debian_python

use_debian_python("nbd")

POSADA = sys.argv[1]
tmp = tempfile.TemporaryDirectory()
MB = 1 << 20


def path(name):
    return os.path.join(tmp.name, name)


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            skip(f"{p} is not installed")


def nbd():
    try:
        import nbd
    except ImportError:
        skip("python3-libnbd is not installed")
    return nbd


def make_raw(name, size=8 * MB):
    """Data, holes and zeroes."""
    rng = random.Random(name)
    with open(path(name), "wb") as f:
        f.truncate(size)
        for _ in range(20):
            f.seek(rng.randrange(size // 4096 - 64) * 4096)
            f.write(rng.randbytes(rng.randrange(1, 200000)))
        f.truncate(size)
    return path(name)


class Serve:
    """A server, up to the end of the with block."""

    def __init__(self, image, *options, tcp=False):
        self.socket = path("s.sock")
        where = [] if tcp else ["--socket", self.socket]
        self.p = subprocess.Popen([POSADA, "disk", "serve", *where, *options, image], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.uri = self.p.stdout.readline().strip()
        if not self.uri:
            raise AssertionError(self.p.communicate()[1])

    def __enter__(self):
        return self

    def __exit__(self, *why):
        if self.p.poll() is None:
            self.p.terminate()
        out, err = self.p.communicate(timeout=30)
        if self.p.returncode:
            print("# server:", self.p.returncode, err)
        if why[0] is None:
            assert self.p.returncode == 0 and not err, (self.p.returncode, err)

    def rss(self):
        with open(f"/proc/{self.p.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_nbdinfo_sees_the_export():
    need("nbdinfo")
    with Serve(make_raw("a.raw"), "--format=raw", "--name=a disk", "--description=for tests", "--persistent") as s:
        j = json.loads(run("nbdinfo", "--json", s.uri).out)
        assert j["protocol"] == "newstyle-fixed" and j["structured"], j
        e = j["exports"][0]
        assert e["export-name"] == "a disk" and e["export-size"] == 8 * MB, e
        for can in ["can_multi_conn", "can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_cache", "can_df"]:
            assert e[can], can
        assert not e["is_read_only"]
        assert e["contexts"] == ["base:allocation", "qemu:allocation-depth"], e
        listed = json.loads(run("nbdinfo", "--json", "--list", s.uri.replace("a%20disk", "")).out)["exports"]
        assert [x["export-name"] for x in listed] == ["a disk"] and listed[0]["description"] == "for tests", listed
        assert run("nbdinfo", s.uri.replace("a%20disk", "other")).status != 0


def test_block_status_is_qemu_img_s():
    need("nbdinfo", "qemu-img")
    raw = make_raw("b.raw")
    with Serve(raw, "--format=raw", "--persistent") as s:
        ours = json.loads(run("nbdinfo", "--map", "--json", s.uri).out)
        theirs = json.loads(run("qemu-img", "map", "--output=json", "-U", "-f", "raw", raw).out)

        def runs(extents, zero):
            out = []
            for e in extents:
                if out and out[-1][1] == zero(e):
                    out[-1][0] += e["length"]
                else:
                    out.append([e["length"], zero(e)])
            return out
        assert runs(ours, lambda e: e["type"] == 3) == runs(theirs, lambda e: e["zero"]), (ours, theirs)


def dirty_runs(uri, name):
    """By nbdinfo: [(start, length)] of what is dirty."""
    r = run("nbdinfo", "--map=qemu:dirty-bitmap:" + name, "--json", uri)
    assert r.status == 0, r
    return [(e["offset"], e["length"]) for e in json.loads(r.out) if e["type"] == 1]


def dirty_runs_of_qemu(image, name):
    pid = path("qemu-nbd.pid")
    socket = path("q-" + name.replace(" ", "-") + ".sock")
    assert run("qemu-nbd", "--fork", "-r", "-k", socket, "-f", "qcow2", "-B", name, "--pid-file=" + pid, image).status == 0
    try:
        return dirty_runs("nbd+unix:///?socket=" + socket, name)
    finally:
        end(int(open(pid).read()))


def test_bitmaps_are_qemu_nbd_s():
    need("nbdinfo", "qemu-img", "qemu-io", "qemu-nbd")
    image, raw = path("bits.qcow2"), 40 * MB + 512
    assert run("qemu-img", "create", "-q", "-f", "qcow2", image, str(raw)).status == 0
    for name, granularity in (("fine", "512"), ("coarse bits", "1M"), ("empty", "64k")):
        assert run("qemu-img", "bitmap", "--add", "-g", granularity, image, name).status == 0
    assert run("qemu-img", "bitmap", "--disable", image, "empty").status == 0
    writes = [(0, 512), (3 * MB + 512, 4096), (8 * MB, 9 * MB), (40 * MB, 512)]
    for at, size in writes:
        assert run("qemu-io", "-f", "qcow2", "-c", f"write -q -P 7 {at} {size}", image).status == 0
    want = {name: dirty_runs_of_qemu(image, name) for name in ("fine", "coarse bits", "empty")}
    assert want["fine"] == writes and want["empty"] == [], want
    names = [x for name in want for x in ("-B", name)]
    with Serve(image, "-r", "-f", "qcow2", "--persistent", *names) as s:
        for name in want:
            assert dirty_runs(s.uri, name) == want[name], (name, dirty_runs(s.uri, name), want[name])
        e = json.loads(run("nbdinfo", "--json", "--list", s.uri).out)["exports"][0]
        assert set(e["contexts"]) == {"base:allocation", "qemu:allocation-depth", *("qemu:dirty-bitmap:" + n for n in want)}, e
        h = nbd().NBD()
        for pattern, found in (("qemu:dirty-bitmap:", 3), ("qemu:", 4), ("base:", 1), ("qemu:dirty-bitmap:f", 0)):
            h = nbd().NBD()
            h.set_opt_mode(True)
            h.connect_uri(s.uri)
            seen = []
            h.add_meta_context(pattern)
            h.opt_list_meta_context(lambda n: seen.append(n) and None)
            assert len(seen) == found, (pattern, seen)
            h.opt_abort()
    # What clients write is recorded at once, and stays.
    with Serve(image, "-f", "qcow2", "--persistent", "--bitmap=fine") as s:
        h = nbd().NBD()
        h.connect_uri(s.uri)
        h.pwrite(b"!" * 1024, 20 * MB)
        h.zero(512, 30 * MB)
        h.shutdown()
        assert dirty_runs(s.uri, "fine") == sorted(writes + [(20 * MB, 1024), (30 * MB, 512)]), dirty_runs(s.uri, "fine")
    assert dirty_runs_of_qemu(image, "fine") == sorted(writes + [(20 * MB, 1024), (30 * MB, 512)])
    # A layer below has it; above its end nothing was recorded.
    over = path("over-bits.qcow2")
    assert run("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", over, str(60 * MB)).status == 0
    with Serve(over, "-r", "-f", "qcow2", "--persistent", "-B", "coarse bits") as s:
        want = dirty_runs_of_qemu(image, "coarse bits")
        got = dirty_runs(s.uri, "coarse bits")
        assert got == want, (got, want)
    for name, says in (("none", "no bitmap 'none'"), ("fine", None)):
        r = run(POSADA, "disk", "serve", "--socket", path("n.sock"), "-f", "qcow2", "-B", name, path("absent.qcow2") if not says else image,
                timeout=20)
        assert r.status != 0 and (not says or says in r.err), r


def test_copies_out_and_in_are_equal():
    need("nbdcopy", "qemu-img")
    raw = make_raw("c.raw")
    with Serve(raw, "--format=raw", "--persistent") as s:
        assert run("nbdcopy", s.uri, path("c.out")).status == 0
        r = run("qemu-img", "convert", "-n" if os.path.exists(path("c.qemu")) else "-q", "-O", "raw", s.uri, path("c.qemu"))
        assert r.status == 0, r
        assert run("qemu-img", "compare", s.uri, path("c.qemu")).status == 0
    want = open(raw, "rb").read()
    assert open(path("c.out"), "rb").read() == want
    assert open(path("c.qemu"), "rb").read() == want
    source = make_raw("d.raw")
    with Serve(raw, "--format=raw", "--persistent") as s:
        assert run("nbdcopy", "--destination-is-zero" if False else "--flush", source, s.uri).status == 0
    assert open(raw, "rb").read() == open(source, "rb").read()
    with Serve(raw, "--format=raw", "--persistent") as s:
        r = run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path("c.qemu"), s.uri)
        assert r.status == 0, r
    assert open(raw, "rb").read() == want


def test_random_requests_over_connections_match_a_model():
    nbd_ = nbd()
    size = 4 * MB
    raw = make_raw("m.raw", size)
    model = bytearray(open(raw, "rb").read())
    rng = random.Random(5)
    with Serve(raw, "--format=raw", "--persistent") as s:
        handles = []
        for _ in range(3):
            h = nbd_.NBD()
            h.connect_uri(s.uri)
            handles.append(h)
        for i in range(600):
            h = rng.choice(handles)
            offset = rng.randrange(size)
            n = min(rng.choice([1, 511, 4096, 70000, 400000]), size - offset)
            kind = rng.randrange(7)
            if kind < 2:
                assert h.pread(n, offset) == model[offset:offset + n]
            elif kind < 4:
                data = rng.randbytes(n)
                h.pwrite(data, offset, nbd_.CMD_FLAG_FUA if i % 5 == 0 else 0)
                model[offset:offset + n] = data
            elif kind == 4:
                h.zero(n, offset, rng.choice([0, nbd_.CMD_FLAG_NO_HOLE, nbd_.CMD_FLAG_FAST_ZERO]))
                model[offset:offset + n] = bytes(n)
            elif kind == 5:
                h.flush()
            else:
                h.cache(n, offset)
        for h in handles:
            h.shutdown()
    assert open(raw, "rb").read() == model


def test_many_requests_in_flight():
    nbd_ = nbd()
    size = 4 * MB
    raw = make_raw("q.raw", size)
    want = open(raw, "rb").read()
    with Serve(raw, "--format=raw", "--persistent") as s:
        h = nbd_.NBD()
        h.connect_uri(s.uri)
        rng = random.Random(6)
        for _ in range(10):
            pending = []
            for i in range(64):
                if i % 16 == 9:
                    pending.append((None, 0, h.aio_flush()))
                    continue
                offset = rng.randrange(size - 65536)
                buf = nbd_.Buffer(rng.randrange(1, 65536))
                pending.append((buf, offset, h.aio_pread(buf, offset)))
            while pending:
                h.poll(-1)
                for p in [p for p in pending if h.aio_command_completed(p[2])]:
                    if p[0]:
                        assert p[0].to_bytearray() == want[p[1]:p[1] + p[0].size()]
                    pending.remove(p)
        h.shutdown()


def test_ends_when_the_clients_have_left():
    nbd_ = nbd()
    with Serve(make_raw("e.raw", MB), "--format=raw") as s:
        h = nbd_.NBD()
        h.connect_uri(s.uri)
        h.pwrite(b"x" * 512, 0)
        h.shutdown()
        assert s.p.wait(timeout=20) == 0
        assert not os.path.exists(s.socket)


def test_read_only_and_snapshot_leave_the_file_alone():
    nbd_ = nbd()
    raw = make_raw("r.raw", MB)
    before = open(raw, "rb").read()
    with Serve(raw, "--format=raw", "-r") as s:
        h = nbd_.NBD()
        h.set_strict_mode(0)
        h.connect_uri(s.uri)
        assert h.is_read_only()
        for call in [lambda: h.pwrite(b"y" * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)]:
            try:
                call()
                raise AssertionError("not refused")
            except nbd_.Error as e:
                assert e.errno == "EPERM", e
        h.shutdown()
    with Serve(raw, "--format=raw", "--snapshot") as s:
        h = nbd_.NBD()
        h.connect_uri(s.uri)
        h.pwrite(b"y" * 512, 1000)
        assert h.pread(514, 999) == before[999:1000] + b"y" * 512 + before[1512:1513]
        h.shutdown()
    assert open(raw, "rb").read() == before


def make_certificates():
    folder = path("tls")
    if os.path.exists(folder):
        return folder
    need("openssl")
    os.makedirs(folder + "/client")
    c = lambda *a: subprocess.run(["openssl", *a], check=True, capture_output=True, cwd=folder)
    c("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "2",
      "-subj", "/CN=test CA")
    for who, extension in [("server", "subjectAltName=DNS:localhost,IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]:
        with open(f"{folder}/{who}.ext", "w") as f:
            f.write(extension)
        c("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{who}-key.pem", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        c("x509", "-req", "-in", f"{who}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
          "-out", f"{who}-cert.pem", "-days", "2", "-extfile", f"{who}.ext")
    for f in ["ca-cert.pem", "client-cert.pem", "client-key.pem"]:
        shutil.copy(f"{folder}/{f}", folder + "/client")
    os.makedirs(folder + "/stranger")
    shutil.copy(f"{folder}/ca-cert.pem", folder + "/stranger")
    return folder


def test_tls():
    nbd_ = nbd()
    folder = make_certificates()
    raw = make_raw("t.raw", 2 * MB)
    want = open(raw, "rb").read()
    port = free_port()
    with Serve(raw, "--format=raw", "--persistent", "--tls", folder, "--port", str(port), tcp=True) as s:
        assert s.uri == f"nbds://127.0.0.1:{port}/", s.uri

        def connect(certificates, tls):
            h = nbd_.NBD()
            h.set_tls(tls)
            if certificates:
                h.set_tls_certificates(certificates)
            h.connect_tcp("localhost", str(port))
            return h
        h = connect(folder + "/client", nbd_.TLS_REQUIRE)
        assert h.get_tls_negotiated()
        assert h.pread(2 * MB, 0) == want
        pending = []
        for i in range(32):  # sends and receives at once
            buf = nbd_.Buffer(50000)
            pending.append((buf, i * 1000, h.aio_pread(buf, i * 1000)))
        h.pwrite(b"tls" * 1000, 100000)
        for buf, offset, cookie in pending:
            while not h.aio_command_completed(cookie):
                h.poll(-1)
            if offset > 103000 or offset + 50000 < 100000:
                assert buf.to_bytearray() == want[offset:offset + 50000]
        assert h.pread(3000, 100000) == b"tls" * 1000
        h.shutdown()
        for certificates, tls in [(folder + "/stranger", nbd_.TLS_REQUIRE), (None, nbd_.TLS_DISABLE)]:
            try:  # TLS 1.3 tells a client without a certificate only when it reads
                connect(certificates, tls).pread(512, 0)
                raise AssertionError("not refused")
            except nbd_.Error:
                pass
        h = connect(folder + "/client", nbd_.TLS_REQUIRE)  # it is still there
        h.shutdown()


def test_plain_text_before_tls_is_not_trusted():
    folder = make_certificates()
    port = free_port()
    with Serve(make_raw("u.raw", MB), "--format=raw", "--persistent", "--tls", folder, "--port", str(port), tcp=True):
        option = lambda n, d=b"": struct.pack(">QII", 0x49484156454f5054, n, len(d)) + d
        c = socket.create_connection(("127.0.0.1", port), timeout=20)
        c.sendall(b"\0\0\0\3" + option(5) + option(8))
        got = b""
        while True:
            try:
                more = c.recv(4096)
            except ConnectionResetError:
                break
            if not more:
                break
            got += more
        assert len(got) == 18, got  # the greeting and nothing else


def test_hostile_clients_cost_little():
    nbd_ = nbd()
    raw = make_raw("h.raw", 64 * MB)
    with Serve(raw, "--format=raw", "--persistent", "--shared=8") as s:
        go = struct.pack(">QII", 0x49484156454f5054, 7, 6) + struct.pack(">IH", 0, 0)
        clients = []
        for i in range(4):  # ask for 200 times 32 MiB each and read nothing
            c = socket.socket(socket.AF_UNIX)
            c.connect(s.socket)
            c.sendall(b"\0\0\0\3" + go)
            c.setblocking(False)
            for k in range(200):
                try:
                    c.send(struct.pack(">IHHQQI", 0x25609513, 0, 0, k, 0, 32 * MB))
                except BlockingIOError:
                    break
            clients.append(c)
        h = nbd_.NBD()
        h.connect_uri(s.uri)  # is served meanwhile
        assert len(h.pread(65536, 0)) == 65536
        h.shutdown()
        for c in clients:
            c.close()
        assert s.rss() < 4 * 80 * 1024 + 50 * 1024, s.rss()


def test_killed_server_leaves_a_socket_that_the_next_one_takes():
    s = Serve(make_raw("k.raw", MB), "--format=raw")
    s.p.kill()
    s.p.communicate()
    assert os.path.exists(s.socket)
    with Serve(path("k.raw"), "--format=raw", "--persistent") as again:
        r = run(POSADA, "disk", "serve", "--format=raw", "--socket", again.socket, make_raw("l.raw", MB))
        assert r.status == 125 and "cannot listen at" in r.err, r
        r = run(POSADA, "disk", "serve", "--format=raw", "--socket", path("x.sock"), path("k.raw"))
        assert r.status == 125 and "in use by process" in r.err, r


main(globals(), sys.argv[2:])
