"""The life of amd64 instances under KVM, for real: see nested.py.

    life_test.py POSADA WORK SOURCE [PATTERN...]

The short form is one guest through pause, snapshot, live clone, restore, saved state and the power key. The long form (POSADA_LONG)
has what takes boots of its own: reboot, panic, a killed monitor, several processors, the balloon."""
import os, re, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from nested import Host
from tap import main, skip

host = Host(*[os.path.abspath(a) for a in sys.argv[1:4]])

# say NAME COMMAND...: what it prints, and its status, between lines that name it
HEAD = """export XDG_RUNTIME_DIR=$PWD/run; mkdir -p run
say() { name=$1; shift; echo "<$name>"; "$@" 2>&1; echo "</$name> $?"; }
inside() { name=$1; instance=$2; shift 2; say $name posada exec --wait 300s $instance -- sh -c "$*"; }
pid() { posada info --json $1 | sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' | head -1; }
clean() { for i in h g; do posada delete --force $i >/dev/null 2>&1; done; }
clean
"""


class Said:
    """What a script said, by name."""

    def __init__(self, script, seconds, cpus=1):
        out, _ = host.run(HEAD + script + "\nclean\n", seconds, cpus)
        self.all = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", out, flags=re.M)  # what the emulated host's kernel says
        self.parts = {m[1]: (m[2].strip(), int(m[3])) for m in
                      re.finditer(r"^<(\w+)>\n((?:.|\n)*?)</\1> (\d+)$", self.all, re.M)}

    def __call__(self, name, text=None, status=0):
        """It ended with that status, and said that, or something that has it in it; returns it."""
        assert name in self.parts, (name, self.all)
        said, ended = self.parts[name]
        assert ended == status and (text is None or text in said), (name, said, ended, self.all)
        return said


def long():
    if not os.environ.get("POSADA_LONG"):
        skip("long: make check-slow")


def test_a_guest_is_paused_snapshot_cloned_restored_and_saved():
    s = Said("""
say launch posada launch tiny g --arch amd64 -m 160M --disk-size 64M
inside first g 'echo one >/tmp/x; cat /sys/devices/system/clocksource/clocksource0/current_clocksource'
say pause posada pause g; sleep 2; say resume posada resume g
inside paused g 'cat /tmp/x'
say snapshot posada snapshot create g/a
inside write g 'echo two >/tmp/x; echo two | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null'
say clone posada copy g h --live
inside clone_has h 'cat /tmp/x; hostname; head -c 3 /dev/vda; echo; dmesg | grep -c "virtual machine fork"'
inside original g 'echo three >/tmp/x; cat /tmp/x; hostname'
inside clone_keeps h 'cat /tmp/x'
say clone_kvm sh -c "ls -l /proc/$(pid h)/fd | grep -c kvm-vm"
say restore posada snapshot restore g/a
inside restored g 'cat /tmp/x; head -c 3 /dev/vda | tr "\\000" 0'
say save posada stop --save g
say start posada start g
inside saved g 'cat /tmp/x; dmesg | grep -i -E "unstable|skewed|soft lockup|stall" || echo calm'
say stop posada stop g
say reason posada info g
""", 500)
    for name in "launch", "pause", "resume", "snapshot", "write", "clone", "restore", "save", "start":
        s(name)
    s("first", "kvm-clock")
    s("paused", "one")
    assert s("clone_has").split() == ["two", "h", "two", "1"], s.all
    s("original", "three")
    s("clone_keeps", "two")
    s("clone_kvm", "1")  # its own machine, and not the original's
    assert s("restored").split() == ["one", "000"], s.all
    assert s("saved").split() == ["one", "calm"], s.all
    s("stop")
    s("reason", "poweroff")


def test_reboot_panic_and_a_killed_monitor():
    long()
    s = Said("""
say panic posada run --rm --arch amd64 --memory 160M --timeout 300 tiny -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60'
say launch posada launch tiny g --arch amd64 -m 160M --disk-size 64M
inside first g 'echo flushed | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; cat /proc/sys/kernel/random/boot_id >/tmp/id; cat /tmp/id'
say reboot posada exec g -- sh -c 'reboot -f'
sleep 20
inside again g 'ls /tmp/id; head -c 7 /dev/vda'
say kill kill -9 $(pid g)
sleep 2
say crashed posada info g
say start posada start g
inside after g 'head -c 7 /dev/vda'
say stop posada stop g
""", 900)
    s("panic", "the guest stopped before it had run the command", status=125)
    s("first")
    assert "flushed" in s("again") and "No such file" in s("again"), s.all
    s("crashed", "crashed")
    s("start")
    s("after", "flushed")
    s("stop")


def test_processors_and_balloon():
    long()
    s = Said("""
say two posada run --rm --arch amd64 --cpus 2 --memory 192M --timeout 400 tiny -- sh -c 'nproc; grep -c ^processor /proc/cpuinfo'
say launch posada launch tiny g --arch amd64 -m 256M --cpus 4 --disk-size 64M
inside four g 'nproc; dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>/dev/null; rm /dev/shm/x; sleep 5'
say rss sh -c 'posada list --json'
say clone posada copy g h --live
inside clone_has h 'nproc; for i in 1 2 3 4; do sleep 1 & done; wait; echo ran'
say stop posada stop g h
""", 900)
    assert s("two").split() == ["2", "2"], s.all
    assert s("four").split() == ["4"], s.all
    assert s("clone_has").split() == ["4", "ran"], s.all
    used = int(re.search(r'"resident_bytes": *(\d+)', s("rss"))[1])
    assert used < 200 << 20, used  # the balloon's page reports have given back what was free again
    s("stop")


main(globals(), sys.argv[4:])
