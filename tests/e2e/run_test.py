"""posada run with a real guest: the image `tiny`, from Debian's packages.

The image is built once into the build folder. Without a mirror to build it from, all is skipped.
"""
import hashlib, json, os, re, signal, socket, subprocess, sys, time, urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run, skip

POSADA, WORK = sys.argv[1:3]
BOOT_SECONDS = 240
os.makedirs(WORK, exist_ok=True)
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}
image = {}


def need_image():
    """Paths of the image, built if need be."""
    if not image:
        r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
        if r.status:
            b = run(POSADA, "image", "build", "tiny", env=HOME, timeout=600)
            if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
                skip("no package mirror: " + b.err.strip().splitlines()[-1])
            assert b.status == 0, b
            r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
        image.update(json.loads(r.out))
    return image


def posada(*args, **kw):
    need_image()
    return run(POSADA, "run", "--timeout", BOOT_SECONDS, *args, env=HOME, timeout=BOOT_SECONDS + 30, **kw)


def test_command_in_the_guest_under_each_engine():
    for engine in "jit", "interp":
        r = posada("--engine", engine, "--json", "tiny", "--", "sh", "-c", "uname -m; cat; echo err >&2; exit 7",
                   input="from the host\n")
        lines = r.out.splitlines()
        assert r.status == 7 and lines[:2] == ["riscv64", "from the host"] and r.err == "err\n", r
        report = json.loads(lines[2])
        assert report["engine"] == engine and report["status"] == 7 and report["reason"] == "poweroff", report
        assert report["guest_instructions"] > 10_000_000 and report["wall_seconds"] > 0, report


def test_several_harts():
    for cpus in 2, 4:
        r = posada("--cpus", cpus, "--memory", "512M", "tiny", "--", "nproc", input=None)
        assert (r.status, r.out) == (0, f"{cpus}\n"), r


def test_environment_folder_and_words():
    r = posada("-e", "A=it's", "-w", "/tmp", "tiny", "--", "sh", "-c", 'echo "$A"; pwd; echo "$1"', "sh", "a  b",
               input=None)
    assert (r.status, r.out) == (0, "it's\n/tmp\na  b\n"), r


def test_much_data_both_ways():
    data = "".join(f"{i:09d}\n" for i in range(500_000))
    r = posada("tiny", "--", "cat", input=data)
    assert r.status == 0 and hashlib.sha256(r.out.encode()).digest() == hashlib.sha256(data.encode()).digest(), \
        (r.status, len(r.out), len(data), r.err)


def test_console_to_a_shell_prompt_and_power_off():
    need_image()
    t = Terminal(POSADA, "run", "tiny", env=HOME, columns=91, rows=33)
    t.expect(r"[#$] $", BOOT_SECONDS)
    t.send("echo $((6 * 7))\r")
    t.expect(r"\r\n42\r\n")
    t.send("stty size\r")
    t.expect("33 91")
    t.resize(100, 40)
    time.sleep(0.5)
    t.send("stty size\r")
    t.expect("40 100")
    t.send("sleep 100\r")
    time.sleep(0.5)
    t.send("\x03")
    t.expect("[#$] $")
    t.send("poweroff -f\r")
    assert t.wait(60) == 0
    assert t.mode() == (False, True)


def test_script_on_standard_input():
    r = posada("tiny", input="echo result $((40 + 2))\n")
    assert r.status == 0 and "result 42" in r.out, r


def test_shared_folder():
    folder = os.path.join(WORK, "share")
    os.makedirs(folder, exist_ok=True)
    data = os.urandom(3_000_000)
    with open(folder + "/in", "wb") as f:
        f.write(data)
    r = posada("-v", f"{folder}:/mnt/host dir", "tiny", "--", "sh", "-c",
               "cd '/mnt/host dir' && sha256sum < in && cat in in > out && mkdir -p d/e && ls", input=None)
    assert r.status == 0 and r.out.startswith(hashlib.sha256(data).hexdigest()), r
    with open(folder + "/out", "rb") as f:
        assert f.read() == data + data
    assert os.path.isdir(folder + "/d/e")
    r = posada("-v", f"{folder}:/mnt:ro", "tiny", "--", "sh", "-c", "touch /mnt/new", input=None)
    assert r.status != 0 and "Read-only" in r.err and not os.path.exists(folder + "/new"), r


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_published_port_serves_a_page():
    need_image()
    port = free_port()
    p = subprocess.Popen([POSADA, "run", "-p", f"{port}:80", "--timeout", str(BOOT_SECONDS), "tiny", "--", "sh", "-c",
                          "mkdir /www && echo hello from the guest > /www/index.html && httpd -f -p 80 -h /www"],
                         stdin=subprocess.DEVNULL, env=dict(os.environ, **HOME))
    try:
        end = time.monotonic() + BOOT_SECONDS
        page = b""
        while not page and time.monotonic() < end:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            except OSError:
                time.sleep(0.5)
        assert page == b"hello from the guest\n", page
    finally:
        p.send_signal(signal.SIGINT)
        assert p.wait(10) == 130


def test_disk_keeps_what_is_written_unless_snapshot_or_read_only():
    path = os.path.join(WORK, "disk.raw")
    with open(path, "wb") as f:
        f.truncate(8 << 20)
    write = ("tiny", "--", "sh", "-c", "printf mark | dd of=/dev/vda bs=512 seek=3 conv=fsync")
    assert posada("--disk", path + ",snapshot", *write, input=None).status == 0
    with open(path, "rb") as f:
        assert not any(f.read())
    assert posada("--disk", path + ",ro", *write, input=None).status != 0
    assert posada("--disk", path, *write, input=None).status == 0
    with open(path, "rb") as f:
        f.seek(3 * 512)
        assert f.read(4) == b"mark"
    os.chmod(path, 0o444)
    if os.access(path, os.W_OK):
        return  # root may write to anything
    r = posada("--disk", path, *write, input=None)
    assert r.status == 125 and path in r.err and r.err.count("\n") == 1, r


def test_bad_input_is_one_sentence_and_125():
    tiny = need_image()
    truncated = os.path.join(WORK, "truncated")
    with open(tiny["kernel"], "rb") as f, open(truncated, "wb") as out:
        out.write(f.read(100_000))
    empty = os.path.join(WORK, "empty")
    open(empty, "wb").close()
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        for args, word in [
            (["--kernel", "/absent"], "/absent"),
            (["--kernel", truncated], "truncated"),
            (["--kernel", empty], "empty"),
            (["--kernel", "/bin/true"], "/bin/true"),
            (["--kernel", WORK], WORK),
            (["--kernel", tiny["kernel"], "--initrd", "/absent"], "/absent"),
            (["--kernel", tiny["kernel"], "--initrd", empty], "empty"),
            (["--kernel", tiny["kernel"], "--disk", "/absent"], "/absent"),
            (["--kernel", tiny["kernel"], "--disk", WORK], WORK),
            (["--firmware", "/absent"], "/absent"),
            (["tiny", "-p", f"{port}:80"], str(port)),
        ]:
            r = run(POSADA, "run", "--timeout", "10", *args, input=None, env=HOME, timeout=60)
            assert (r.status, r.out) == (125, ""), (args, r)
            assert r.err.startswith("posada run: ") and r.err.count("\n") == 1 and word in r.err, (args, r)
    r = run(POSADA, "run", "tiny", "--memory", "16M", input=None, env=HOME, timeout=60)  # an option's value: 2
    assert (r.status, r.out, r.err) == (2, "", "posada run: memory: a guest of image 'tiny' needs at least 128M\n"), r


def test_guest_that_panics_has_failed_at_once():
    r = posada("tiny", "--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000", input=None)
    assert r.status == 125, r
    assert "the guest stopped before it had run the command" in r.err and "sysrq triggered crash" in r.err, r


def test_timeout_stops_a_running_guest():
    start = time.monotonic()
    r = run(POSADA, "run", "--timeout", "3s", "tiny", "--", "sleep", "1000", input=None, env=HOME)
    assert r.status == 124 and 3 <= time.monotonic() - start < 8, r


if __name__ == "__main__":
    main(globals(), sys.argv[3:])
