"""The Debian installer, from its own network boot kernel and initrd, to its first dialogs.

Slow: fetches the package that has them once (52 MB) into the build folder. Without a mirror it is skipped.
"""
import glob, os, re, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, skip

POSADA, WORK, SOURCE = sys.argv[1:4]
PACKAGE = "debian-installer-13-netboot-riscv64"
BOOT_SECONDS = 600
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}


def need_installer():
    """Paths of its kernel and initrd."""
    os.makedirs(WORK, exist_ok=True)
    r = subprocess.run([SOURCE + "/bench/peers", "riscv64", "trixie", PACKAGE], env=dict(os.environ, **HOME),
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if r.returncode and re.search(r"resolve|connect|network|reach|not found", r.stderr, re.I):
        skip("no package mirror: " + r.stderr.strip().splitlines()[-1])
    assert not r.returncode, r
    found = [glob.glob(f"{r.stdout.strip()}/usr/lib/debian-installer/images/13/riscv64/text/debian-installer/riscv64/{f}")
             for f in ("linux", "initrd.gz")]
    assert all(found), (r.stdout, found)
    return [f[0] for f in found]


def test_first_dialogs_and_network():
    kernel, initrd = need_installer()
    t = Terminal(POSADA, "run", "--name", "inn", "--kernel", kernel, "--initrd", initrd, env=HOME, columns=100, rows=30)
    t.expect(r"Select a language", BOOT_SECONDS)
    t.expect(r"English")
    t.send("\x1b[B\r")  # down: from C to English
    t.expect(r"Select your location", BOOT_SECONDS)
    t.expect(r"United States")
    t.send("\r")
    t.expect(r"Keymap to use", BOOT_SECONDS)
    t.send("\r")
    t.expect(r"Configure the network", BOOT_SECONDS)  # it has found the card, and DHCP gave it the name
    t.expect(r"hostname for this system", BOOT_SECONDS)
    t.expect(r"inn___")
    t.send("\x1dk")  # Ctrl-], k: stop at once
    assert t.wait(30) == 1
    assert t.mode() == (False, True)


main(globals(), sys.argv[4:])
