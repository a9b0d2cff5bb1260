"""posada run's foreground: terminal, signals, pipes, statuses. The machine is fake_vm.c: no guest is booted."""
import json, os, re, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run

POSADA = sys.argv[1]
tmp = tempfile.TemporaryDirectory()
KERNEL = os.path.join(tmp.name, "kernel")
open(KERNEL, "w").close()
HOME = {"HOME": tmp.name, "XDG_DATA_HOME": tmp.name + "/data", "XDG_CACHE_HOME": tmp.name + "/cache"}


IMAGE = os.path.join(tmp.name, "data/posada/images/tiny-trixie-riscv64")
os.makedirs(IMAGE)
for name in "kernel", "initrd":
    open(os.path.join(IMAGE, name), "w").close()
with open(os.path.join(IMAGE, "image"), "w") as f:
    f.write("Name: tiny\nMirror: http://mirror.invalid/debian\nKernel: 6.12\nAppend: quiet\nInitrd: yes\nDisk: no\nBuilt: 1\n")


def posada(*args, **kw):
    return run(POSADA, "run", *args, env=HOME, **kw)


def terminal(*args, **kw):
    t = Terminal(POSADA, "run", "--kernel", KERNEL, *args, env=HOME, **kw)
    t.expect("ready\r\n")
    return t


def finish(t, status, line="off 0"):
    t.send(line + "\r")
    assert t.wait() == status
    assert t.mode() == (False, True)


def test_status_of_the_guest_is_passed_on():
    for status in 0, 1, 77, 255:
        r = posada("--kernel", KERNEL, input=f"off {status}\n")
        assert (r.status, r.out, r.err) == (status, "ready\n", ""), r
    assert posada("--kernel", KERNEL, input="panic\n").status == 1


def test_engine_failure_is_125_with_its_sentence():
    r = posada("--kernel", KERNEL, input="fail\n")
    assert (r.status, r.err) == (125, "posada run: the engine gave up\n"), r


def test_piped_input_arrives_whole_and_its_end_is_ctrl_d():
    words = "".join(f"echo line {i} {'x' * 60}\n" for i in range(300))
    r = posada("--kernel", KERNEL, input=words)
    assert r.status == 0, r
    assert re.findall(r"^line (\d+) x{60}$", r.out, re.M) == [str(i) for i in range(300)], r.out[-500:]


def test_empty_input_types_nothing():
    r = posada("--kernel", KERNEL, "--timeout", "300ms", input=None)
    assert r.status == 124, r


def test_timeout_is_124_and_said():
    start = time.monotonic()
    r = posada("--kernel", KERNEL, "--timeout=200ms", "--json", input=None)
    assert 0.2 <= time.monotonic() - start < 5
    assert (r.status, r.err) == (124, "posada run: stopped after the timeout of 0.2 seconds\n"), r
    assert json.loads(r.out.splitlines()[-1])["reason"] == "timeout", r


def test_json_is_one_last_line():
    r = posada("--kernel", KERNEL, "--json", "--engine=interp", "--name=a-b.c", input="off 5\n")
    last = json.loads(r.out.splitlines()[-1])
    assert last["status"] == r.status == 5
    assert (last["name"], last["image"], last["engine"], last["reason"]) == ("a-b.c", None, "interp", "poweroff"), last
    assert last["guest_instructions"] == 12345 and last["wall_seconds"] > 0, last


def test_stats_are_told_at_the_end():
    r = posada("--kernel", KERNEL, "--stats", input="off 0\n")
    assert re.search(r"^turns +7$", r.err, re.M), r
    r = posada("--kernel", KERNEL, "--json", input="off 0\n")
    assert json.loads(r.out.splitlines()[-1])["stats"] == {"turns": 7}, r


def start_without_terminal():
    p = subprocess.Popen([POSADA, "run", "--kernel", KERNEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=dict(os.environ, **HOME), bufsize=0)
    assert p.stdout.readline() == "ready\n"
    return p


def test_signals_stop_a_machine_without_terminal():
    for signo in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        p = start_without_terminal()
        p.send_signal(signo)
        assert p.wait(10) == 128 + signo


def test_second_sigterm_does_not_wait_for_the_guest():
    p = start_without_terminal()
    p.stdin.write("hang\n")
    assert p.stdout.readline() == "hanging\n"
    p.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert p.poll() is None
    p.send_signal(signal.SIGTERM)
    assert p.wait(2) == 143


def test_terminal_is_raw_while_the_guest_has_it():
    t = terminal()
    assert t.mode() == (True, False)
    t.send("\x03")
    t.expect(r"got \^C")
    finish(t, 9, "off 9")


def test_window_size_reaches_the_guest():
    t = terminal(columns=100, rows=30)
    t.send("size\r")
    t.expect("100x30")
    t.resize(120, 40)
    time.sleep(0.1)
    t.send("size\r")
    t.expect("120x40")
    finish(t, 0)


def test_menu():
    t = terminal()
    t.send("\x1d")
    t.expect("q power off")
    t.send("i")
    t.expect("'posada', running, engine jit, 1 cpus, 1G memory")
    t.send("\x1dp")
    t.expect("paused")
    t.send("echo while paused\r\x1di")
    t.expect("'posada', paused")
    t.send("\x1dp")
    t.expect("running")
    t.expect("while paused\r\n")
    t.send("\x1dr")
    t.expect("ready")
    t.send("\x1d]\x1d\x1d")
    t.expect(r"got \^\]\r\n[^\0]*got \^\]")
    t.send("\x1dx")
    t.expect("back in the guest")
    t.send("\x1dq")
    t.expect("asking the guest's kernel to power off")
    assert t.wait() == 0
    assert t.mode() == (False, True)


def test_menu_stops_a_hanging_guest():
    t = terminal()
    t.send("hang\r")
    t.expect("hanging")
    t.send("\x1dq")
    t.expect("stops it at once")
    t.send("\x1dk")
    assert t.wait() == 1
    assert t.mode() == (False, True)


def test_terminal_is_given_back_however_posada_ends():
    for signo in signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGABRT:
        t = terminal()
        assert t.mode() == (True, False)
        t.kill(signo)
        status = t.wait()
        assert status in (128 + signo, -signo), (signo, status)
        end = time.monotonic() + 5
        while t.mode() != (False, True) and time.monotonic() < end:
            time.sleep(0.01)
        assert t.mode() == (False, True), signo


def test_stop_and_continue_keep_the_terminal_raw():
    t = terminal()
    t.kill(signal.SIGSTOP)
    t.kill(signal.SIGCONT)
    t.send("echo on\r")
    t.expect("on\r\n")
    assert t.mode() == (True, False)
    finish(t, 0)


def test_errors_before_the_start_leave_the_terminal_alone():
    t = Terminal(POSADA, "run", "--kernel", tmp.name + "/absent", env=HOME)
    t.expect("posada run: cannot open kernel '.*/absent': No such file")
    assert t.wait() == 125
    assert t.mode() == (False, True)


def test_bad_input_is_one_sentence():
    for args, status, sentence in [
        (["--publish=80"], 2, "--publish: expected [ADDRESS:]HOSTPORT:GUESTPORT[/udp], such as 8080:80, not '80'"),
        (["--publish=1.2.3:80:80"], 2, None),
        (["--publish=0:80"], 2, None),
        (["--publish=8080:65536"], 2, None),
        (["--publish=[::1:80:80"], 2, None),
        (["--publish=8080:80/sctp"], 2, None),
        (["--publish=8080:80", "--net=none"], 2, "--publish needs a network: it excludes --net=none"),
        (["--volume=/absent:/x"], 2, "--volume: cannot share '/absent': No such file or directory"),
        (["--volume=/etc/passwd:/x"], 2, "--volume: cannot share '/etc/passwd': it is not a folder"),
        (["--volume=/etc"], 2, "--volume: expected HOSTFOLDER:/GUEST/PATH[:ro], not '/etc'"),
        (["--volume=/etc:x"], 2, None),
        (["--memory=99999G"], 2, None),
        (["--memory=1000000000"], 2, "--memory: expected whole mebibytes, not 1000000000 bytes"),
        (["--memory=1000G"], 125, None),
        (["--mac=01:00:00:00:00:01"], 2, None),
        (["--mac=52:54:00:12:34"], 2, None),
        (["--name=a/b"], 2, "--name: expected up to 63 letters, digits, dashes and dots, not 'a/b'"),
        (["--name=../x"], 2, None),
        (["--trace=nosuch_*"], 2, "--trace: no trace event matches 'nosuch_*'"),
        (["--trace-file=/absent/x"], 125, "--trace-file: cannot write '/absent/x': No such file or directory"),
        (["--env=A=b"], 2, "--env needs a command: posada run IMAGE -- COMMAND"),
        (["--", "ls"], 2, "a command after '--' needs an image, such as 'tiny'"),
        (["tiny"], 2, "--kernel excludes an image, but 'tiny' was given"),
        (["--payload=x"], 2, "--payload needs --firmware"),
        (["--gdb-wait"], 2, "--gdb-wait needs --gdb"),
        (["--disk=/absent,rx"], 2, None),
        (["--disk=/absent,cache=writethrough"], 2, None),
        (["--disk=/absent,refs="], 2, None),
        (["--disk=/absent,format=floppy"], 2, "--disk: disk format 'floppy' is unknown"),
    ]:
        r = posada("--kernel", KERNEL, *args, input="off 0\n")
        assert (r.status, r.out) == (status, ""), (args, r)
        assert r.err.startswith("posada run: ") and r.err.count("\n") == 1, (args, r)
        assert not sentence or r.err == f"posada run: {sentence}\n", (args, r)
        assert args[0].partition("=")[0].strip("-") in r.err, (args, r)


def test_good_forwards_are_accepted():
    for text in "8080:80", "127.0.0.1:8080:80", "[::1]:8080:80/udp", "0.0.0.0:1:65535/tcp":
        assert posada("--kernel", KERNEL, "-p", text, input="off 0\n").status == 0, text


def test_command_gets_our_streams_and_gives_its_status():
    r = posada("tiny", "--", "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")
    assert (r.status, r.out, r.err) == (7, "in\n", "err\n"), r
    assert posada("tiny", "--", "true", input=None).status == 0
    assert posada("tiny", "--", "absent-command", input=None).status == 127


def test_command_words_arrive_as_they_are():
    words = ["a b", "'", '"', "$HOME", "*", "", "\\", "new\nline", "é"]
    r = posada("tiny", "--env", "X=1 '2'", "--workdir", "/usr", "--", "sh", "-c",
               'pwd; echo "$X"; for w; do echo "<$w>"; done', "sh", *words, input=None)
    assert r.out == "/usr\n1 '2'\n" + "".join(f"<{w}>\n" for w in words), r


def test_command_reads_much_input_or_none_of_it():
    data = "x" * 3_000_000
    assert posada("tiny", "--", "wc", "-c", input=data).out.strip() == str(len(data))
    assert posada("tiny", "--", "true", input=data).status == 0
    with open("/dev/zero") as endless:
        r = subprocess.run([POSADA, "run", "tiny", "--", "echo", "done"], stdin=endless, capture_output=True,
                           text=True, timeout=30, env=dict(os.environ, **HOME))
    assert (r.returncode, r.stdout) == (0, "done\n"), r


def test_command_that_never_reports_is_our_failure():
    r = posada("tiny", "--", "sh", "-c", "kill -9 $$", input=None)
    assert r.status == 125, r
    assert r.err == ("the guest's console ended with:\nfake console\n\n"
                     "posada run: the guest stopped before it had run the command\n"), r


def test_command_and_timeout():
    r = posada("tiny", "--timeout=300ms", "--", "sleep", "1", input=None)
    assert r.status == 124 and r.err.endswith("posada run: stopped after the timeout of 0.3 seconds\n"), r


def test_bad_environment():
    for text in "1x=2", "x", "=1", "a-b=1":
        r = posada("tiny", "--env", text, "--", "true", input=None)
        assert (r.status, r.err) == (2, f"posada run: --env: expected NAME=VALUE, not '{text}'\n"), r


if __name__ == "__main__":
    main(globals(), sys.argv[2:])
