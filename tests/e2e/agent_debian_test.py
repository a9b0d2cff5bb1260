"""The agent in a Debian instance: what it does to a whole system, its disk and its network.

Slow: builds the image if there is none of this build. Without a mirror all is skipped.
"""
import glob, hashlib, json, os, re, socket, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA, WORK, PROBE, LOOPBACK = sys.argv[1:5]
NAME = "agent-debian"
BOOT = "900s"
os.makedirs(WORK + "/run", mode=0o700, exist_ok=True)
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache", "XDG_RUNTIME_DIR": WORK + "/run"}
VSOCK = f"{WORK}/run/posada/{NAME}/vsock"
started = []


def need_image():
    r = run(POSADA, "image", "info", "debian", "--json", env=HOME)
    # An image of an older build has an older agent, or none.
    if r.status or os.path.getmtime(json.loads(r.out)["disk"]) < os.path.getmtime(PROBE):
        b = run(POSADA, "image", "build", "debian", env=HOME, timeout=3000)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b


def guest():
    """The instance's name; it is started at the first call."""
    if started:
        assert started[0], "the guest did not start"
        return NAME
    need_image()
    run(POSADA, "delete", "--force", NAME, env=HOME)
    started.append(False)
    r = run(POSADA, "launch", "-m", "1G", "debian", NAME, env=HOME, timeout=300)
    assert r.status == 0, r
    r = run(POSADA, "exec", "--wait", BOOT, NAME, "--", "systemctl", "is-system-running", "--wait", env=HOME, timeout=1500)
    assert r.out == "running\n", r
    started[0] = True
    return NAME


def execute(*argv, options=(), **kw):
    kw.setdefault("timeout", 300)
    return run(POSADA, "exec", *options, guest(), "--", *argv, env=HOME, **kw)


def probe(*args, **kw):
    guest()
    return run(PROBE, VSOCK, *args, timeout=300, **kw)


def wait_for(condition, seconds=120):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def test_users_and_statuses():
    for i in 0, 1, 42, 255:
        assert execute("sh", "-c", f"exit {i}").status == i
    r = execute("sh", "-c", "id -un; id -gn; pwd; echo $HOME; test -w /etc; echo $?", options=["-u", "games"])
    assert r.out == "games\ngames\n/usr/games\n/usr/games\n1\n" or r.out == "games\ngames\n/\n/usr/games\n1\n", r
    r = execute("id", "-u", options=["-u", "12345"])
    assert r.out == "12345\n", r
    r = execute("id", options=["-u", "nobody-at-all"])
    assert r.status == 125 and "there is no user 'nobody-at-all' in the guest" in r.err, r


def test_a_hundred_mebibytes_both_ways():
    data = os.urandom(100 << 20)
    want = hashlib.sha256(data).hexdigest()
    env = dict(os.environ, **HOME)
    r = subprocess.run([POSADA, "exec", "-i", guest(), "--", "sh", "-c", "cat >/root/data; sha256sum </root/data"],
                       input=data, capture_output=True, timeout=600, env=env)
    assert r.returncode == 0 and r.stdout.decode().split()[0] == want, r
    r = subprocess.run([POSADA, "exec", guest(), "--", "cat", "/root/data"], capture_output=True, timeout=600, env=env)
    assert r.returncode == 0 and hashlib.sha256(r.stdout).hexdigest() == want, (r.returncode, len(r.stdout), r.stderr)
    execute("rm", "/root/data")


def test_a_tree_with_owners():
    r = execute("sh", "-c", "mkdir -p /srv/t/a && echo x >/srv/t/a/f && chown games:mail /srv/t/a/f && chmod 4750 /srv/t/a/f "
                "&& ln -s f /srv/t/a/l && mkfifo /srv/t/p")
    assert r.status == 0, r
    there = f"{WORK}/owners"
    subprocess.run(["rm", "-rf", there], check=True)
    r = run(POSADA, "cp", f"{guest()}:/srv/t", there, env=HOME)
    assert r.status == 0 and "1 sockets, pipes or devices were left out" in r.err, r
    assert os.stat(there + "/a/f").st_mode & 0o7777 == 0o750 and os.readlink(there + "/a/l") == "f"
    if os.geteuid():
        skip("only root can give files away")
    r = run(POSADA, "cp", "-a", f"{guest()}:/srv/t", there + "/kept", env=HOME)
    assert r.status == 0 and os.stat(there + "/kept/a/f").st_mode & 0o7777 == 0o4750, r
    r = run(POSADA, "cp", "-a", there + "/kept", f"{guest()}:/srv/again", env=HOME)
    assert r.status == 0, r
    r = execute("stat", "-c", "%U %G %a", "/srv/again/a/f")
    assert r.out == "games mail 4750\n", r


def written():
    """What the host knows of the guest's writes to its disk."""
    files = glob.glob(f"{HOME['XDG_DATA_HOME']}/posada/instances/{NAME}/disks/*")
    assert files
    return [(f, os.stat(f).st_mtime_ns, os.stat(f).st_size) for f in sorted(files)]


def writer():
    """A program in the guest that writes and syncs without end, and says what it has done."""
    p = subprocess.Popen([POSADA, "exec", guest(), "--", "sh", "-c",
                          "i=0; while :; do i=$((i + 1)); echo $i >/root/counter; sync /root/counter; echo $i; done"],
                         stdout=subprocess.PIPE, env=dict(os.environ, **HOME))
    assert p.stdout.readline() == b"1\n"
    return p


class Frozen:
    """File systems of the guest, frozen by a process of the host's."""

    def __init__(self, timeout_ms):
        self.process = subprocess.Popen([PROBE, VSOCK, "freeze", str(timeout_ms)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        assert re.match(r"frozen [1-9]", self.process.stdout.readline())
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_frozen_nothing_is_written_and_thawed_it_goes_on():
    p = writer()
    try:
        with Frozen(60000) as f:
            time.sleep(1)  # what was on its way when it froze
            before = written()
            time.sleep(4)
            assert written() == before
            r = probe("freeze", "1000", input="\n")
            assert r.status == 1 and "frozen by another connection" in r.err, r
            out, err = f.communicate("\n", timeout=60)
            assert out == "thawed\n" and f.returncode == 0, (out, err)
        wait_for(lambda: written() != before)
    finally:
        p.kill()
        p.wait()


def test_a_host_that_disappears_leaves_nothing_frozen():
    # The newest session in the guest is this one, the one before it has frozen: it dies as by the kernel for want of
    # memory.
    kill = "kill -9 $(pgrep -f '^/usr/lib/posada/agent$' | tail -n 2 | head -n 1)"
    p = writer()
    try:
        with Frozen(1500) as f:
            before = written()
            wait_for(lambda: written() != before)
            _, err = f.communicate("\n", timeout=60)
            assert "the timeout has thawed" in err, err
        with Frozen(600000) as f:
            before = written()
            f.kill()
            wait_for(lambda: written() != before)
        with Frozen(600000) as f:
            before = written()
            r = execute("sh", "-c", kill)
            assert r.status == 0, r
            wait_for(lambda: written() != before)
    finally:
        p.kill()
        p.wait()


def call(name, **args):
    """A call of the monitor's API; its result."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"{WORK}/run/posada/{NAME}/monitor.sock")
        s.sendall(json.dumps({"id": 1, "call": name, "args": args}).encode() + b"\n")
        for line in s.makefile():
            answer = json.loads(line)
            assert "error" not in answer, answer
            if "result" in answer:
                return answer["result"]


def test_a_snapshot_of_disks_alone_finds_file_systems_at_rest():
    p = writer()
    try:
        r = call("snapshot", snapshot="rest", disk_only=True)
        assert r["frozen"] >= 1 and r["state_bytes"] == 0, r
        before = written()
        wait_for(lambda: written() != before)
    finally:
        p.kill()
        p.wait()


def test_a_new_identity():
    before = probe("info").out
    mac = re.search(r"^address (\S+) ([0-9a-f:]{17}) [0-9.]+/24$", before, re.M)
    old_id = re.search(r"^machine_id ([0-9a-f]{32})$", before, re.M)
    assert mac and old_id, before
    r = probe("identity", "hostname=clone-7", "machine_id=", "ssh_keys=1", f"mac={mac[2]},52:54:00:ab:cd:ef")
    assert r.status == 0, r
    again = re.compile(rf"^address {mac[1]} 52:54:00:ab:cd:ef [0-9.]+/24$", re.M)
    wait_for(lambda: again.search(probe("info").out))
    after = probe("info").out
    new_id = re.search(r"^machine_id ([0-9a-f]{32})$", after, re.M)
    assert "hostname clone-7\n" in after and new_id and new_id[1] != old_id[1], after
    r = execute("sh", "-c", "hostname; cat /etc/hostname /etc/machine-id; grep ^127.0.1.1 /etc/hosts; networkctl --no-legend")
    assert r.out.startswith(f"clone-7\nclone-7\n{new_id[1]}\n127.0.1.1 clone-7\n") and "routable" in r.out, r
    r = execute("sh", "-c", "ping -c 1 -W 20 10.0.2.2 >/dev/null; echo $?")
    assert r.out == "0\n", r
    assert probe("reseed").status == 0


def test_the_guests_own_programs_are_not_served():
    r = run(POSADA, "cp", LOOPBACK, f"{guest()}:/root/loopback", env=HOME)
    assert r.status == 0, r
    r = execute("sh", "-c", "modprobe vsock_loopback && chmod 755 /root/loopback && /root/loopback")
    assert r.out == "connected, then closed without a word\n", r


def test_info_and_latency():
    r = probe("info")
    assert re.search(r"^os_id debian$", r.out, re.M) and re.search(r"^user root (hvc|ttyS)\d$", r.out, re.M), r
    for what in "ping", "exec":
        r = probe(what, "200")
        assert r.status == 0, r
        print(f"# connect and {what}: {r.out.strip()}")


def test_stop_ends_services_in_order():
    r = execute("systemd-run", "-u", "marker", "-p", "ExecStop=/bin/sh -c 'echo yes >/root/stopped; sync'", "sleep", "inf")
    assert r.status == 0, r
    r = run(POSADA, "stop", NAME, env=HOME, timeout=600)
    assert r.status == 0, r
    r = run(POSADA, "exec", NAME, "--", "true", env=HOME)
    assert r.status == 125 and "is not running" in r.err, r
    r = run(POSADA, "start", NAME, env=HOME, timeout=300)
    assert r.status == 0, r
    r = execute("cat", "/root/stopped", options=["--wait", BOOT], timeout=1000)
    assert r.out == "yes\n", r


try:
    main(globals(), sys.argv[5:])
finally:
    if started:
        run(POSADA, "stop", "--force", NAME, env=HOME)
        run(POSADA, "delete", NAME, env=HOME)
