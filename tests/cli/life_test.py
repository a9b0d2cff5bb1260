"""Instances from launch to delete, with a fake machine in each monitor: everything but the guest is real."""
import glob, json, os, random, re, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run

POSADA = sys.argv[1]
tmp = tempfile.TemporaryDirectory()
HOME = {"HOME": tmp.name, "XDG_DATA_HOME": tmp.name + "/data", "XDG_CACHE_HOME": tmp.name + "/cache",
        "XDG_RUNTIME_DIR": tmp.name + "/run", "VISUAL": "", "EDITOR": ""}
DATA, RUNTIME = tmp.name + "/data/posada", tmp.name + "/run/posada"


def make_image(kind, disk):
    """An image as image_build() leaves it, of files that only the fake machine boots."""
    folder = f"{DATA}/images/{kind}-trixie-riscv64"
    os.makedirs(folder)
    for name in "kernel", "initrd":
        with open(f"{folder}/{name}", "w") as f:
            f.write(name)
    if disk:
        with open(folder + "/disk.raw", "wb") as f:
            f.truncate(64 << 20)
    with open(folder + "/image", "w") as f:
        f.write(f"Name: {kind}\nMirror: http://x\nKernel: 6.0\nAppend: root=/dev/vda2\nInitrd: yes\n"
                f"Disk: {'yes' if disk else 'no'}\nBuilt: 1\n")


os.makedirs(tmp.name + "/run")
make_image("tiny", False)
make_image("debian", True)


def posada(*args, **kw):
    kw.setdefault("input", None)
    kw.setdefault("timeout", 60)
    return run(POSADA, *args, env=dict(HOME, **kw.pop("env", {})), **kw)


def ok(*args, **kw):
    r = posada(*args, **kw)
    assert r.status == 0, (args, r)
    return r.out


def fails(sentence, *args, status=125, **kw):
    r = posada(*args, **kw)
    assert r.status == status and r.err.count("\n") == 1 and sentence in r.err, (args, r)


def info(name):
    return json.loads(ok("info", "--json", name))


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def state(name):
    return info(name)["state"]


def typed(name, text):
    """Type a line into the guest's console."""
    p = subprocess.Popen([POSADA, "console", name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                         env=dict(os.environ, **HOME))
    p.stdin.write(text.encode())
    p.stdin.flush()
    return p


def clean_up():
    ok("delete", "--all", "--force")
    left = os.listdir(DATA + "/instances") + glob.glob(DATA + "/bases/*") + os.listdir(RUNTIME)
    assert not left, left


def test_a_life():
    assert ok("launch", "debian", "web", "-m", "512M", "-p", "8080:80", "--restart=no") == "web\n"
    i = info("web")
    assert (i["state"], i["image"], i["memory_bytes"], i["publish"]) == ("running", "debian:trixie", 512 << 20, ["8080:80"]), i
    assert i["pid"] and os.readlink(f"/proc/{i['pid']}/exe") == os.path.realpath(POSADA)
    assert open(f"/proc/{i['pid']}/comm").read() == "posada-monitor\n"
    fails("there is an instance 'web' already", "launch", "debian", "web")
    fails("is running already", "start", "web")
    fails("is running: stop it", "delete", "web")
    fails("is running: stop it", "rename", "web", "other")
    ok("pause", "web")
    assert state("web") == "paused"
    ok("pause", "web")
    ok("resume", "web")
    assert state("web") == "running"
    assert "web" in ok("list") and "running" in ok("list") and ok("list", "-q") == "web\n"
    ok("restart", "web")
    assert info("web")["pid"] != i["pid"]
    ok("stop", "web")
    assert state("web") == "off" and info("web")["reason"] == "poweroff" and info("web")["asked"]
    fails("is not running", "stop", "web")
    fails("is not running", "pause", "web")
    assert ok("list", "--running", "-q") == ""
    ok("rename", "web", "site")
    fails("there is no instance 'web'", "start", "web")
    ok("start", "site")
    ok("stop", "--force", "site")
    assert info("site")["reason"] == "stopped"
    ok("delete", "site")
    assert json.loads(ok("list", "--json")) == []
    clean_up()


def test_the_choice_of_an_engine_is_told_once_and_kept():
    r = posada("launch", "--no-start", "tiny", "chosen")
    assert r.status == 0 and re.search(r"^(amd64 under KVM: |riscv64 by translation: no KVM here, for )\S", r.err, re.M), r
    line = r.err.strip().splitlines()[-1]
    assert info("chosen")["engine_reason"] == line, (line, info("chosen"))
    fails("cannot be changed", "set", "chosen", "engine-reason=mine", status=2)
    r = posada("launch", "--no-start", "tiny", "told", "--arch", "riscv64")
    assert r.status == 0 and "riscv64 by" not in r.err and "engine_reason" not in info("told"), r
    clean_up()


def test_names_are_found_and_checked():
    assert ok("launch", "--no-start", "tiny") == "tiny\n" and ok("launch", "--no-start", "tiny") == "tiny-2\n"
    assert state("tiny-2") == "off"
    fails("cannot be an instance's name", "launch", "tiny", "a/b", status=2)
    assert ok("create", "tiny", "made") == "made\n" and state("made") == "off"
    fails("there is an instance 'made' already", "copy", "made", "made")    # at once, not waiting for itself
    ok("delete", "made")
    fails("there is no instance 'x'", "start", "x")
    fails("an operand is missing", "start", status=2)
    fails("--all excludes names", "stop", "--all", "tiny", status=2)
    ok("start", "--all")
    ok("stop", "--all")
    clean_up()


def test_the_console_is_shared_logged_and_left_alone():
    ok("launch", "tiny", "a")
    t = Terminal(POSADA, "console", "a", env=HOME, columns=91, rows=33)
    t.expect("Ctrl-\\] leads out")
    u = Terminal(POSADA, "console", "a", env=HOME)
    u.expect("Ctrl-\\] leads out")
    t.send("echo for all\r")
    t.expect("for all\r\n")
    u.expect("for all\r\n")
    u.resize(100, 40)
    time.sleep(0.2)
    t.send("size\r")
    t.expect("100x40")
    t.send("\x1d]")
    t.expect(r"got \^\]")
    t.send("\x03")
    t.expect(r"got \^C")
    t.send("\x1dd")
    assert t.wait() == 0 and t.mode() == (False, True)
    assert state("a") == "running"
    log = ok("logs", "a")
    assert "for all" in log and ok("logs", "-n", "1", "a") == log.splitlines()[-1] + "\n", log
    f = subprocess.Popen([POSADA, "logs", "-f", "a"], stdout=subprocess.PIPE, text=True, env=dict(os.environ, **HOME))
    u.send("echo the last words\r")
    u.send("off 3\r")
    assert u.wait(20) == 0 and u.mode() == (False, True)
    assert "the last words" in f.communicate(timeout=20)[0]
    w = posada("wait", "a")
    assert (w.status, w.out) == (3, "a panic 3\n") or (w.status, w.out) == (3, "a poweroff 3\n"), w
    clean_up()


def test_a_guest_that_does_not_power_off():
    ok("launch", "tiny", "a")
    p = typed("a", "hang\n")
    wait_for(lambda: "hanging" in ok("logs", "a"))
    fails("has not powered off within 0.5 seconds, and goes on", "stop", "--timeout=500ms", "a", status=124)
    assert state("a") == "running"
    ok("stop", "--timeout=300ms", "--force", "a")
    assert state("a") == "off"
    p.stdin.close()
    p.wait(20)
    clean_up()


def test_configuration():
    ok("launch", "--no-start", "debian", "a")
    path = info("a")["folder"] + "/instance.yaml"
    with open(path, "a") as f:
        f.write("# a comment\n")
    ok("set", "a", "cpus=4", "memory=2G", "publish+=8080:80", "publish+=8081:81")
    ok("set", "a", "publish-=8080:80", "description=it's \"mine\" # not a comment")
    assert ok("get", "a", "cpus", "memory", "publish", "description") == "4\n2G\n8081:81\nit's \"mine\" # not a comment\n"
    assert json.loads(ok("get", "--json", "a"))["memory"] == 2 << 30
    assert "# a comment" in open(path).read()
    before = open(path).read()
    for args, sentence in [(["cpus=99"], "expected a number from 1 to 16"), (["memroy=1G"], "did you mean 'memory'"),
                           (["uuid=1"], "cannot be changed"), (["cpus"], "expected KEY=VALUE"),
                           (["cpus=2", "net=none"], "publish needs a network")]:
        fails(sentence, "set", "a", *args, status=2)
        assert open(path).read() == before
    with open(path, "a") as f:
        f.write("cpuz: 3\n")
    line = before.count("\n") + 1
    fails(f"instance.yaml:{line}: unknown key 'cpuz'", "start", "a")
    fails(f"instance.yaml:{line}: unknown key 'cpuz'", "get", "a")
    assert "unknown key" in info("a")["error"]
    with open(path, "w") as f:
        f.write(before)
    ok("start", "a")
    r = posada("set", "a", "cpus=2")
    assert r.status == 0 and "cpus is used from its next start on" in r.err, r
    r = posada("set", "a", "restart=always")
    assert r.status == 0 and r.err == "", r
    clean_up()


def test_edit():
    ok("launch", "--no-start", "tiny", "a")
    ok("edit", "a", env={"EDITOR": "sed -i s/cpus:.1/cpus:\\ 3/"})
    assert ok("get", "a", "cpus") == "3\n"
    fails("cpus: expected a number", "edit", "a", env={"EDITOR": "sed -i s/cpus:.3/cpus:\\ 0/"})
    fails("failed: nothing was changed", "edit", "a", env={"EDITOR": "false"})
    assert ok("get", "a", "cpus") == "3\n"
    script = tmp.name + "/editor"
    with open(script, "w") as f: # wrong at first, then right
        f.write('#!/bin/sh\nif grep -q "cpus: 0" "$1"; then sed -i "s/cpus: 0/cpus: 5/" "$1"; else sed -i "s/cpus: 3/cpus: 0/" "$1"; fi\n')
    os.chmod(script, 0o755)
    t = Terminal(POSADA, "edit", "a", env=dict(HOME, EDITOR=script))
    t.expect("expected a number from 1 to 16, not '0'")
    t.expect("edit again")
    t.send("y\r")
    assert t.wait() == 0 and ok("get", "a", "cpus") == "5\n"
    clean_up()


def test_restart_policies():
    ok("launch", "tiny", "a", "--restart=on-failure:1")
    pid = info("a")["pid"]
    typed("a", "panic\n").communicate(timeout=20)
    wait_for(lambda: info("a").get("restarts") == 1 and state("a") == "running")
    assert info("a")["pid"] == pid
    typed("a", "panic\n").communicate(timeout=20)
    wait_for(lambda: state("a") == "panicked")
    assert info("a")["reason"] == "panic"
    ok("set", "a", "restart=always")
    ok("start", "a")
    typed("a", "off 0\n").communicate(timeout=20)
    wait_for(lambda: info("a").get("restarts") == 1)
    ok("stop", "a")
    assert state("a") == "off"
    clean_up()


def test_stopping_between_two_machines():
    ok("launch", "tiny", "a", "--restart=always")
    typed("a", "panic\n").communicate(timeout=20)
    wait_for(lambda: state("a") in ("restarting", "running"))
    ok("stop", "a")
    assert state("a") == "off"
    clean_up()


def test_autostart():
    for name, policy in ("a", "no"), ("b", "always"), ("c", "unless-stopped"), ("d", "unless-stopped"):
        ok("launch", "tiny", name, "--restart=" + policy)
    ok("launch", "--no-start", "tiny", "e", "--autostart")
    ok("stop", "a", "b", "c")
    os.kill(info("d")["pid"], signal.SIGKILL)
    wait_for(lambda: state("d") == "crashed")
    assert sorted(ok("autostart").split()) == ["b", "d", "e"]
    assert ok("autostart") == ""
    clean_up()


def test_events():
    with open(tmp.name + "/events", "w+") as out:
        p = subprocess.Popen([POSADA, "events", "--json"], stdout=out, env=dict(os.environ, **HOME))
        seen = lambda: [json.loads(line)["event"] for line in open(tmp.name + "/events")]
        try:
            time.sleep(0.3)
            ok("launch", "tiny", "a")
            wait_for(lambda: "running" in seen())
            ok("pause", "a")
            ok("resume", "a")
            ok("stop", "a")
            wait_for(lambda: "ended" in seen())
            ok("delete", "a")
            wait_for(lambda: "deleted" in seen())
        finally:
            p.kill()
            p.wait()
        assert [e for e in seen() if e != "started"] == \
            ["created", "running", "paused", "resumed", "stopping", "stopped", "ended", "deleted"], seen()
    clean_up()


def test_wait_and_top():
    ok("launch", "tiny", "a")
    fails("'a' still runs", "wait", "--timeout=200ms", "a", status=124)
    table = ok("top", "-n", "1", "-i", "200ms")
    assert re.search(r"^a +\d+ +running +1 +\d", table, re.M), table
    assert json.loads(ok("top", "--json", "-n", "1", "-i", "100ms"))[0]["name"] == "a"
    p = subprocess.Popen([POSADA, "wait", "a"], stdout=subprocess.PIPE, text=True, env=dict(os.environ, **HOME))
    ok("stop", "a")
    assert p.communicate(timeout=20)[0] == "a poweroff 0\n" and p.returncode == 0
    clean_up()


def test_a_run_in_the_foreground_is_an_instance():
    t = Terminal(POSADA, "run", "debian", "--name", "f", env=HOME)
    t.expect("ready")
    i = info("f")
    assert i["state"] == "running" and i["foreground"], i
    fails("'f' is running already", "run", "debian", "--name", "f")
    u = Terminal(POSADA, "console", "f", env=HOME)
    u.expect("leads out")
    u.send("echo hello\r")
    t.expect("hello\r\n")
    ok("stop", "f")
    assert t.wait() == 0 and state("f") == "off"
    u.wait()
    t = Terminal(POSADA, "run", "debian", "--name", "f", "-c", "3", env=HOME)
    t.expect("ready")
    t.send("\x1di")
    t.expect("3 cpus")
    assert ok("get", "f", "cpus") == "1\n"
    t.send("\x1dk")
    t.wait()
    fails("was made from image", "run", "debian:sid", "--name", "f")
    clean_up()


def test_detached_run():
    assert ok("run", "-d", "debian", "--name", "g") == "g\n"
    assert state("g") == "running"
    fails("--detach excludes", "run", "-d", "--rm", "debian", status=2)
    clean_up()


def test_an_image_may_go_while_instances_need_its_disk():
    ok("launch", "--no-start", "debian", "a")
    ok("image", "remove", "debian")
    ok("start", "a")
    ok("stop", "a")
    layers = json.loads(ok("disk", "info", "--backing-chain", "--json", info("a")["disk"]))  # as any disk
    assert len(layers) > 1, layers
    variables = os.path.join(info("a")["folder"], "vars.fd")  # a guest may have written this
    ok("disk", "create", "-f", "qcow2", "-b", layers[-1]["filename"], "-F", "raw", "--refs", "any", variables)
    fails("outside of its own folder", "disk", "info", "--backing-chain", variables)
    os.unlink(variables)
    clean_up()
    make_image("debian", True)


def test_a_monitor_that_was_killed():
    ok("launch", "debian", "a")
    os.kill(info("a")["pid"], signal.SIGKILL)
    wait_for(lambda: state("a") == "crashed")
    fails("is not running", "stop", "a")
    ok("start", "a")
    assert state("a") == "running"
    clean_up()


def test_sigterm_powers_the_guest_off():
    ok("launch", "tiny", "a")
    os.kill(info("a")["pid"], signal.SIGTERM)
    wait_for(lambda: state("a") == "off")
    assert info("a")["reason"] == "poweroff"
    clean_up()


def test_a_monitor_that_does_not_answer():
    ok("launch", "tiny", "a")
    ok("launch", "tiny", "b")
    pid = info("a")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with_state = lambda: open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
        wait_for(lambda: with_state() == "T")           # not at once on a busy host
        states = {i["name"]: i["state"] for i in json.loads(ok("list", "--json"))}
        assert states == {"a": "unresponsive", "b": "running"}, states
    finally:
        os.kill(pid, signal.SIGCONT)
    clean_up()


def test_commands_on_one_instance_take_turns():
    ok("launch", "--no-start", "debian", "a")
    ps = [subprocess.Popen([POSADA, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ, **HOME))
          for args in [["start", "a"]] * 5 + [["set", "a", f"publish+=1{i:03}:80"] for i in range(10)]]
    results = [(p.communicate(timeout=60)[1], p.returncode) for p in ps]
    assert sum(status == 0 for _, status in results[:5]) == 1, results
    assert all(status == 0 for _, status in results[5:]), results
    assert len(ok("get", "a", "publish").split()) == 10
    clean_up()


def seed_id(iso):
    with open(iso, "rb") as f:
        return re.search(rb"instance-id: (\S+)\n", f.read())[1].decode()


def test_cloud_init():
    path = tmp.name + "/user-data"
    with open(path, "w") as f:
        f.write("#cloud-config\nhostname: x\n")
    ok("launch", "--no-start", "debian", "a", "--cloud-init", path)
    iso = info("a")["folder"] + "/seed.iso"
    with open(iso, "rb") as f:
        data = f.read()
    # ECMA-119: the primary descriptor at sector 16; "CD001", the volume's name at byte 40
    assert data[0x8001:0x8006] == b"CD001" and data[0x8028:0x8048].rstrip() in (b"cidata", b"CIDATA"), data[0x8000:0x8050]
    assert b"#cloud-config\nhostname: x\n" in data and b"local-hostname: a\n" in data and b"instance-id: a-" in data
    blkid = subprocess.run(["blkid", "-p", "-s", "LABEL", "-s", "TYPE", "-o", "export", iso], capture_output=True, text=True)
    assert blkid.returncode == 0 and "TYPE=iso9660" in blkid.stdout and re.search("LABEL=cidata", blkid.stdout, re.I), blkid
    # A copy and an import are other instances to cloud-init; a seed disk of somebody else's stays as it is.
    seen = {seed_id(iso)}
    ok("copy", "a", "c")
    ok("export", "a", tmp.name + "/a.posada")
    ok("import", tmp.name + "/a.posada", "--name", "i")
    for name in "c", "i":
        iso = info(name)["folder"] + "/seed.iso"
        with open(iso, "rb") as f:
            data = f.read()
        assert b"#cloud-config\nhostname: x\n" in data and b"local-hostname: %s\n" % name.encode() in data
        assert seed_id(iso).startswith(name + "-") and seed_id(iso) not in seen
        seen.add(seed_id(iso))
        with open(info(name)["folder"] + "/introduce") as f:
            assert f.read() == "name\nidentity\n"
    os.unlink(iso)
    with open(iso, "w") as f:
        f.write("somebody else's")
    ok("copy", "i", "j")
    with open(info("j")["folder"] + "/seed.iso") as f:
        assert f.read() == "somebody else's"
    ok("delete", "c", "i", "j")
    with open(path, "w") as f:
        f.write("hostname: x\n")
    fails("it must begin with '#cloud-config'", "launch", "debian", "b", "--cloud-init", path, status=2)
    assert ok("list", "-q") == "a\n"
    clean_up()


def test_killed_at_any_point():
    """After kill -9 of a command, the next one finds a store in order, and nothing is left over in the end."""
    random.seed(7)
    commands = [["launch", "debian", "k"], ["launch", "--no-start", "debian", "k"], ["start", "k"], ["stop", "--force", "k"],
                ["set", "k", "cpus=2"], ["delete", "--force", "k"], ["rename", "k", "l"], ["rename", "l", "k"],
                ["restart", "--force", "k"]]
    for turn in range(int(os.environ.get("POSADA_KILLS", "60"))):
        p = subprocess.Popen([POSADA, *random.choice(commands)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=dict(os.environ, **HOME))
        time.sleep(random.choice([0.002, 0.01, 0.03]) * random.random())
        p.kill()
        p.wait()
        if turn % 4 == 3:
            running = [i for i in json.loads(ok("list", "--json")) if i.get("pid") and "cpu_seconds" in i]
            if running:
                os.kill(random.choice(running)["pid"], signal.SIGKILL)
        for i in json.loads(ok("list", "--json")):
            assert "error" not in i or i["state"] != "crashed", i
            assert json.loads(ok("get", "--json", i["name"]))["image"] == "debian:trixie"
    clean_up()


if __name__ == "__main__":
    main(globals(), sys.argv[2:])
