"""The command line without a guest: what is accepted, what is printed, and the exit status."""
import json, os, re, shutil, subprocess, sys, tarfile, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA = sys.argv[1]
SUBS = ["run", "launch", "create", "start", "stop", "restart", "pause", "resume", "list", "info", "top", "events", "wait",
        "console", "logs", "exec", "shell", "cp", "set", "get", "edit", "rename", "delete", "snapshot", "snapshot create",
        "snapshot list", "snapshot info", "snapshot restore", "snapshot delete", "snapshot rename", "copy", "export", "import",
        "autostart", "image", "image build", "image list", "image info", "image remove", "disk", "disk create",
        "disk info", "disk convert", "disk check", "disk map", "disk compare", "disk measure", "disk resize",
        "disk rebase", "disk commit", "disk merge", "disk compact", "disk bitmap", "disk bench", "disk serve",
        "disk mount", "disk unmount", "doctor", "help", "completion", "version"]
tmp = tempfile.TemporaryDirectory()
HOME = {"HOME": tmp.name, "XDG_DATA_HOME": tmp.name + "/data", "XDG_CACHE_HOME": tmp.name + "/cache"}


def posada(*args, **kw):
    kw.setdefault("env", HOME)
    return run(POSADA, *args, **kw)


def options(node):
    yield node
    for sub in node["commands"]:
        yield from options(sub)


def test_help_of_every_command_names_all_its_options():
    tree = json.loads(posada("help", "--json").out)
    seen = [n["path"] for n in options(tree)]
    assert sorted(seen) == sorted([""] + SUBS), seen
    for node in options(tree):
        path = node["path"].split()
        text = posada(*path, "--help")
        assert text.status == 0 and not text.err, text
        assert text.out.startswith("Usage: posada"), text
        if len(path) < 2:
            assert posada("help", *path).out == text.out
        for o in node["options"]:
            assert re.search(rf"--(\[no-\])?{o['name']}\b", text.out), (node["path"], o["name"])
            assert not o["help"].endswith("."), (node["path"], o["name"])
        assert max(len(line) for line in text.out.splitlines()) <= 100
        assert "(null)" not in text.out, node["path"]
        assert not re.search(r"[ \t]$", text.out, re.M), f"trailing space in the help of '{node['path']}'"


def test_short_options_are_unique_per_command():
    for node in options(json.loads(posada("help", "--json").out)):
        shorts = [o["short"] for o in node["options"] if "short" in o]
        assert len(shorts) == len(set(shorts)), (node["path"], shorts)


def test_a_mistake_gets_one_sentence_and_status_2():
    for args, sentence in [
        ([], "posada: a command is needed, such as 'posada run tiny'; 'posada --help' lists them"),
        (["rnu"], "posada: unknown command 'rnu'; did you mean 'posada run'?"),
        (["xyzzy"], "posada: unknown command 'xyzzy'; 'posada --help' lists them"),
        (["image", "lsit"], "posada image: unknown command 'lsit'; did you mean 'posada image list'?"),
        (["--versoin"], "posada: unknown option '--versoin'; did you mean '--version'?"),
        (["run"], "posada run: nothing to boot: give an image, such as 'tiny', or --kernel"),
        (["run", "--memroy=1G", "tiny"], "posada run: unknown option '--memroy'; did you mean '--memory'?"),
        (["run", "-m", "lots", "tiny"],
         "posada run: -m: expected a size from 16M to 1T such as 512M or 2G (bytes without a suffix), not 'lots'"),
        (["run", "tiny", "debian"], "posada run: unexpected operand 'debian'"),
        (["run", "--kernel"], "posada run: --kernel needs a value: FILE"),
        (["completion"], "posada completion: an operand is missing: bash|zsh|fish"),
        (["completion", "tcsh"], "posada completion: expected bash, zsh or fish, not 'tcsh'"),
        (["help", "rum"], "posada help: unknown command 'rum'; did you mean 'posada run'?"),
        (["version", "--", "x"], "posada version: nothing may follow '--' here"),
    ]:
        r = posada(*args)
        assert (r.status, r.out) == (2, ""), (args, r)
        if args[:1] != ["image"]:
            assert r.err == sentence + "\n", (args, r)
        else:
            assert r.err.endswith("did you mean 'posada image list'?\n"), r


def test_version():
    text = posada("version").out
    assert re.fullmatch(r"posada \d+\.\d+\.\d+\n", text), text
    assert posada("--version").out == text
    assert json.loads(posada("version", "--json").out)["version"] in text


def test_a_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        r = subprocess.run([POSADA, "help", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert r.returncode == 125, r
    assert "cannot write to standard output: No space left" in r.stderr, r


def test_doctor_json_has_a_remedy_for_all_that_is_not_ok():
    r = posada("doctor", "--json", timeout=240)
    report = json.loads(r.out)
    assert r.status == (1 if report["fail"] else 0), r
    assert len(report["checks"]) == report["ok"] + report["warn"] + report["fail"]
    for check in report["checks"]:
        assert check["status"] in ("ok", "warn", "fail"), check
        assert bool(check["remedy"]) == (check["status"] != "ok"), check


def test_doctor_reports_a_folder_that_cannot_be_made():
    blocked = os.path.join(tmp.name, "file")
    open(blocked, "w").close()
    r = posada("doctor", env=dict(HOME, XDG_DATA_HOME=blocked), timeout=240)
    assert r.status == 1, r
    assert re.search(r"^fail data folder .*cannot make folder", r.out, re.M), r
    assert "remedy: set XDG_DATA_HOME to a folder that you may write to" in r.out, r


def test_man_pages_are_clean_roff():
    if not shutil.which("man"):
        skip("man is not installed")
    for path in [""] + SUBS:
        page = posada("help", "--man", *path.split()).out
        r = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-"], input=page, text=True,
                           capture_output=True, env=dict(os.environ, MANWIDTH="80", LC_ALL="C.UTF-8"))
        assert r.returncode == 0 and not r.stderr, (path, r.stderr)
        name = "-".join(["posada"] + path.split())
        assert re.search(rf"^NAME\n\s+{name} - \S", r.stdout, re.M), (path, r.stdout[:300])


def complete(*words):
    """What bash offers for the last of @words."""
    script = posada("completion", "bash").out
    words = ["posada", *words]
    r = subprocess.run(["bash", "--norc", "-c", script + """
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }
        _posada; printf '%s\\n' "${COMPREPLY[@]}" """, "bash", *words], text=True, capture_output=True,
        env=dict(os.environ, PATH=os.path.dirname(os.path.abspath(POSADA)) + ":" + os.environ["PATH"], **HOME))
    assert r.returncode == 0 and not r.stderr, r
    return [line for line in r.stdout.splitlines() if line]


def test_bash_completes_commands_options_and_choices():
    assert complete("ru") == ["run"]
    assert complete("image", "") == ["build", "list", "info", "remove"]
    assert complete("run", "--mem") == ["--memory"]
    assert complete("run", "--engine", "") == ["jit", "interp", "check", "kvm"]
    assert complete("run", "--engine", "=", "in") == ["interp"]
    assert complete("run", "--no-r") == ["--no-rng"]
    assert complete("completion", "f") == ["fish"]
    assert complete("run", "tiny", "--", "--mem") == []
    os.makedirs(tmp.name + "/a folder", exist_ok=True)
    assert complete("run", "--kernel", tmp.name + "/a fo") == [tmp.name + "/a folder"]


def test_fish_completes_commands_options_and_choices():
    if not shutil.which("fish"):
        skip("fish is not installed")
    script = posada("completion", "fish").out
    for line, offered in [("posada ru", "run"), ("posada run --eng", "--engine"), ("posada run --engine int", "interp"),
                          ("posada image re", "remove"), ("posada completion f", "fish")]:
        r = subprocess.run(["fish", "-c", script + f"\ncomplete -C '{line}'"], text=True, capture_output=True,
                           env=dict(os.environ, **HOME))
        assert [x.partition("\t")[0] for x in r.stdout.splitlines()] == [offered], (line, r)


def test_other_shells_can_read_their_scripts():
    for shell in "zsh", "fish":
        script = posada("completion", shell)
        assert script.status == 0 and "engine" in script.out and "interp" in script.out
        if shutil.which(shell):
            r = subprocess.run([shell, "-n"], input=script.out, text=True, capture_output=True)
            assert r.returncode == 0 and not r.stderr, r


def test_libraries_are_loaded_by_who_needs_them():
    if os.uname().machine != "x86_64":
        skip("stubs are for x86-64 alone")
    heavy = "libcurl", "libarchive", "libxml2", "libcrypto", "libssl", "libcapstone", "libslirp", "libfuse3"

    def loaded(*args):  # the dynamic linker says what it looks for
        return {x for x in heavy if f"find library={x}." in posada(*args, env=dict(HOME, LD_DEBUG="libs")).err}

    assert loaded("list") == set()
    with tempfile.NamedTemporaryFile(suffix=".ova") as f, tarfile.open(fileobj=f, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("machine.ovf"), None)
        tar.close()
        r = posada("import", f.name)
        assert r.status == 125 and "not an OVF descriptor" in r.err, r  # it was found: calls reach the library
        assert "libarchive" in loaded("import", f.name)


def test_a_name_that_is_not_there_leaves_nothing():
    with tempfile.TemporaryDirectory() as home:
        env = {"HOME": home, "XDG_DATA_HOME": home + "/data", "XDG_CACHE_HOME": home + "/cache"}
        for args in ["delete", "nosuch"], ["start", "nosuch"], ["image", "remove", "tiny"]:
            r = posada(*args, env=env)
            assert r.status == 125 and r.err.count("\n") == 1, r
        assert not [f for _, _, files in os.walk(home) for f in files], os.listdir(home)


if __name__ == "__main__":
    main(globals(), sys.argv[2:])
