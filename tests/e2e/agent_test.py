"""The agent in a real guest, the image `tiny`: programs, files, identity, over the vsock device."""
import hashlib, json, os, re, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run, skip

POSADA, WORK, PROBE = sys.argv[1:4]
BOOT_SECONDS = 240
VSOCK = os.path.join(WORK, "agent-vsock")
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}
machine = []


def guest():
    """The folder of a running guest's sockets; started at the first call."""
    if machine:
        assert machine[0].poll() is None, "the guest has stopped, or was not there in time"
        return VSOCK
    os.makedirs(VSOCK, exist_ok=True)
    r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
    # An image of an older build has an older agent, or none.
    if r.status or os.path.getmtime(json.loads(r.out)["initrd"]) < os.path.getmtime(POSADA):
        b = run(POSADA, "image", "build", "tiny", env=HOME, timeout=600)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b
    log = open(os.path.join(WORK, "agent-console.log"), "wb")
    # An end of standard input would end the shell on the console, and with it the guest.
    machine.append(subprocess.Popen([POSADA, "run", "--vsock", VSOCK, "-m", "512M", "--timeout", "900", "tiny"],
                                    stdin=subprocess.PIPE, stdout=log, stderr=log, env=dict(os.environ, **HOME)))
    for _ in range(BOOT_SECONDS * 10):
        if os.path.exists(VSOCK + "/vsock.sock") or machine[0].poll() is not None:
            break
        time.sleep(0.1)
    r = run(POSADA, "exec", "--wait", f"{BOOT_SECONDS}s", VSOCK, "--", "true", timeout=BOOT_SECONDS + 60)
    if r.status:
        machine[0].kill()
        machine[0].wait()
        raise AssertionError(f"the agent does not answer: {r}")
    return VSOCK


def execute(*argv, options=(), **kw):
    return run(POSADA, "exec", *options, guest(), "--", *argv, **kw)


def probe(*args, **kw):
    return run(PROBE, guest(), *args, **kw)


def test_statuses_streams_and_words():
    r = execute("sh", "-c", "uname -m; echo err >&2; exit 7")
    assert (r.status, r.out, r.err) == (7, "riscv64\n", "err\n"), r
    r = execute("sh", "-c", "kill -9 $$")
    assert r.status == 128 + 9, r
    assert execute("awk", "{print $41}", "/proc/self/stat").out == "0\n"  # as others are scheduled, unlike the agent
    r = execute("no-such-program")
    assert r.status == 127 and r.err == "posada exec: cannot run 'no-such-program': No such file or directory\n", r
    r = execute("/etc")
    assert r.status == 126, r
    r = execute("sh", "-c", 'pwd; echo "$A|$1"', "sh", "a  b", options=["-w", "/tmp", "-e", "A=it's"])
    assert r.out == "/tmp\nit's|a  b\n", r
    r = execute("cat", input="not passed on without -i")
    assert (r.status, r.out) == (0, ""), r
    r = run(POSADA, "shell", guest(), input="echo $((6 * 7)); exit 5\n")
    assert (r.status, r.out) == (5, "42\n"), r


def test_much_data_both_ways():
    data = os.urandom(8 << 20)
    r = subprocess.run([POSADA, "exec", "-i", guest(), "--", "cat"], input=data, capture_output=True, timeout=300)
    assert r.returncode == 0 and hashlib.sha256(r.stdout).digest() == hashlib.sha256(data).digest(), \
        (r.returncode, len(r.stdout), r.stderr)


def test_a_terminal():
    t = Terminal(POSADA, "exec", "-it", guest(), "--", "sh", columns=91, rows=33)
    t.expect(r"# ", 60)
    assert t.mode() == (True, False)
    t.send("stty size\r")
    t.expect("33 91", 60)
    t.resize(100, 40)
    t.send("sleep 1; stty size\r")
    t.expect("40 100", 60)
    t.send("sleep 1000\r")
    time.sleep(0.5)
    t.send("\x03")
    t.expect("# ", 60)
    t.send("exit 3\r")
    assert t.wait(60) == 3
    assert t.mode() == (False, True)


def test_a_signal_is_passed_on():
    p = subprocess.Popen([POSADA, "exec", guest(), "--", "sh", "-c",
                          "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done"],
                         stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "ready\n"
    p.terminate()
    assert p.stdout.readline() == "got it\n" and p.wait(60) == 9


def test_a_tree_goes_there_and_back():
    here = os.path.join(WORK, "agent-tree")
    subprocess.run(["rm", "-rf", here, here + "-back"], check=True)
    os.makedirs(here + "/a/b/c")
    for name, size, mode in ("a/big", 5_000_000, 0o600), ("a/b/run", 100, 0o755), ("empty", 0, 0o644):
        with open(f"{here}/{name}", "wb") as f:
            f.write(os.urandom(size))
        os.chmod(f"{here}/{name}", mode)
        os.utime(f"{here}/{name}", (1, 1234567890))
    os.symlink("a/b/run", here + "/link")
    r = run(POSADA, "cp", here, f"{guest()}:/tmp/tree", timeout=120)
    assert (r.status, r.err) == (0, ""), r
    r = execute("sh", "-c", "cd /tmp/tree && ./link 2>/dev/null; ls -l a/big | cut -c1-10; readlink link")
    assert r.out == "-rw-------\na/b/run\n", r
    r = run(POSADA, "cp", f"{guest()}:/tmp/tree", here + "-back", timeout=120)
    assert (r.status, r.err) == (0, ""), r
    listing = "cd '%s' && find . -printf '%%p %%y %%m %%T@ %%l\\n' -type f -exec sha256sum {} + | grep -v '^. d' | sort"
    a, b = (subprocess.run(["sh", "-c", listing % d], capture_output=True, text=True, check=True).stdout
            for d in (here, here + "-back"))
    assert a == b and "1234567890" in a, (a, b)
    r = run(POSADA, "cp", f"{guest()}:/no/such", here)
    assert r.status == 125 and r.err == "posada cp: cannot open '/no/such': No such file or directory\n", r


def test_info_identity_and_clock():
    r = probe("info")
    mac = re.search(r"^address (\S+) ([0-9a-f:]{17}) [0-9.]+/24$", r.out, re.M)
    assert r.status == 0 and mac and "\nkernel 6." in r.out, r
    r = probe("identity", "hostname=clone-7", "machine_id=", f"mac={mac[2]},52:54:00:ab:cd:ef")
    assert r.status == 0, r
    for _ in range(600):
        r = probe("info")
        if re.search(rf"^address {mac[1]} 52:54:00:ab:cd:ef [0-9.]+/24$", r.out, re.M):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(r)
    assert "hostname clone-7\n" in r.out and re.search(r"^machine_id [0-9a-f]{32}$", r.out, re.M), r
    r = execute("sh", "-c", "cat /etc/hostname; cat /sys/class/net/eth0/address")
    assert r.out == "clone-7\n52:54:00:ab:cd:ef\n", r
    later = probe("identity", "hostname=clone-8", "machine_id=", "mac=52:54:00:ab:cd:ef,52:54:00:ab:cd:f0", "later=1")
    r = execute("sh", "-c", "cat /etc/hostname; hostname")
    assert later.status == 0 and r.out == "clone-8\nclone-8\n", (later, r)
    for _ in range(600):
        if "52:54:00:ab:cd:f0 10." in probe("info").out:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(probe("info"))
    r = probe("identity", "hostname=../x")
    assert r.status == 1 and "no host name" in r.err, r
    assert probe("reseed").status == 0
    assert probe("set-time", 1_900_000_000 * 10**9).status == 0
    year = execute("date", "+%Y")
    assert year.out == "2030\n", year


def test_nothing_is_frozen_where_there_is_no_disk():
    r = probe("freeze", 5000, input="\n")
    assert (r.status, r.out) == (0, "frozen 0\nthawed\n"), r
    p = subprocess.Popen([PROBE, guest(), "freeze", "100"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "frozen 0\n"
    time.sleep(1)
    out, err = p.communicate("\n", timeout=60)
    assert p.returncode == 1 and "timeout has thawed" in err, err


def test_sessions_are_apart():
    one = subprocess.Popen([POSADA, "exec", guest(), "--", "sleep", "1000"])
    two = [subprocess.Popen([POSADA, "exec", guest(), "--", "sh", "-c", f"sleep 1; exit {i}"]) for i in range(10)]
    assert [p.wait(120) for p in two] == list(range(10))
    one.kill()
    one.wait()
    r = execute("sh", "-c", "sleep 1; ps | grep -c '[s]leep 1000'")
    assert r.out == "0\n", r


def test_power_off():
    r = probe("poweroff")
    assert r.status == 0, r
    assert machine[0].wait(120) == 0


try:
    main(globals(), sys.argv[4:])
finally:
    if machine and machine[0].poll() is None:
        machine[0].kill()
