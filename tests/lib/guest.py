"""Instances of the image `tiny` for tests: a store of their own, and a guest's shell on its console.

    s = Store(POSADA, WORK)        skips the test if the image cannot be built
    s("launch", "tiny", "web")     a command; its Result
    g = s.shell("web"); g.run("echo hi") == "hi\n"
"""
import json, os, re, select, socket, time

from tap import run, skip

BOOT_SECONDS = 240


class Shell:
    """A shell in the guest, on the console of a running instance."""

    def __init__(self, path, prompt=r"# "):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.call("resize", columns=5000, rows=50)  # long commands are echoed on one line
        self.call("console")
        self.seen = b""
        self.number = 0
        self.send("\r")
        self.expect(prompt, BOOT_SECONDS)

    def call(self, name, **args):
        self.socket.sendall(json.dumps({"id": 1, "call": name, "args": args}).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self.socket.recv(1)
        assert b'"result"' in answer, answer

    def send(self, text):
        self.socket.sendall(text.encode())

    def expect(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not (m := re.search(pattern.encode(), self.seen)):
            ready, _, _ = select.select([self.socket], [], [], max(0, end - time.monotonic()))
            data = self.socket.recv(65536) if ready else b""
            assert data, f"no {pattern!r} within {seconds}s in {self.seen[-600:]!r}"
            self.seen += data
        self.seen = self.seen[m.end():]
        return m

    def run(self, command, seconds=120):
        """What the command prints; it must succeed."""
        self.number += 1
        tag = f"{self.number}x{time.time_ns()}"     # what is echoed of it has quotes inside
        self.send(f"echo BEG''{tag}; {command}; echo END''{tag}=$?\r")
        m = self.expect(rf"BEG{tag}\r\n((?:.|\r|\n)*?)END{tag}=(\d+)\r\n", seconds)
        assert m.group(2) == b"0", (command, m.group(0))
        return m.group(1).decode(errors="replace").replace("\r\n", "\n")

    def write(self, path, text):
        """Make a file of lines without quotes."""
        self.run(f"> {path}")
        for line in text.splitlines():
            self.run(f"echo '{line}' >> {path}")

    def close(self):
        self.socket.close()


class Store:
    def __init__(self, posada, work, images=None):
        self.posada, self.work = posada, work
        os.makedirs(work + "/run", exist_ok=True)
        self.env = {"HOME": work, "XDG_DATA_HOME": work + "/data", "XDG_CACHE_HOME": work + "/cache",
                    "XDG_RUNTIME_DIR": work + "/run", "LC_ALL": "C"}
        if images:
            os.makedirs(work + "/data/posada", exist_ok=True)
            if not os.path.lexists(work + "/data/posada/images"):
                os.symlink(images, work + "/data/posada/images")

    def need_image(self):
        r = self("image", "info", "tiny")
        if r.status:
            r = self("image", "build", "tiny", timeout=600)
            if r.status and re.search(r"resolve|connect|network|reach", r.err, re.I):
                skip("no package mirror: " + r.err.strip().splitlines()[-1])
            assert r.status == 0, r

    def __call__(self, *args, timeout=BOOT_SECONDS, **kw):
        return run(self.posada, *args, env=self.env, timeout=timeout, **kw)

    def ok(self, *args, **kw):
        r = self(*args, **kw)
        assert r.status == 0, (args, r)
        return r.out

    def refused(self, *args, says, status=125):
        r = self(*args)
        assert r.status == status and says in r.err and r.err.count("\n") == 1, (args, r)

    def json(self, *args):
        return json.loads(self.ok(*args, "--json"))

    def shell(self, name, **kw):
        return Shell(f"{self.work}/run/posada/{name}/monitor.sock", **kw)

    def folder(self, name):
        return f"{self.work}/data/posada/instances/{name}"

    def tree(self, name):
        with open(self.folder(name) + "/tree.json") as f:
            return json.load(f)

    def files(self, name):
        """Of layers and states: those there are, and those that the tree names."""
        t = self.tree(name)
        points = t["snapshots"] + [t["current"]]
        named = {f"disks/{l['id']}.qcow2" for l in t["layers"]}
        named |= {f"states/{p['state']}.state" for p in points if "state" in p}
        there = {f"{d}/{f}" for d in ("disks", "states") if os.path.isdir(f"{self.folder(name)}/{d}")
                 for f in os.listdir(f"{self.folder(name)}/{d}")}
        return there, named

    def wait_for(self, condition, what, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.2)

    def settle(self, name, seconds=60):
        """Wait until all is merged and no file is left over."""
        end = time.monotonic() + seconds
        while True:
            left = self.json("snapshot", "list", name)["unwanted_layers"]
            there, named = self.files(name)
            if not left and there == named:
                return
            assert time.monotonic() < end, (left, there ^ named, self.tree(name))
            time.sleep(0.1)
