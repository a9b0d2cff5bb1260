"""An installed Debian disk, converted from format to format, is the same and boots from each.

Slow: builds the image `debian` once into the build folder (as debian_test.py) and boots it five times.
"""
import json, os, re, shutil, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run, skip

POSADA, WORK = sys.argv[1:3]
BOOT_SECONDS = 900
FORMATS = "qcow2", "vmdk", "vdi", "vhd"
os.makedirs(WORK, exist_ok=True)
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}
FOLDER = os.path.join(WORK, "formats")


def posada(*args, timeout=3000):
    r = run(POSADA, *args, env=HOME, timeout=timeout, input=None)
    assert r.status == 0, (args, r)
    return r.out


def image():
    r = run(POSADA, "image", "info", "debian", "--json", env=HOME)
    if r.status:
        b = run(POSADA, "image", "build", "debian", "--log", WORK + "/debian-build.log", env=HOME, timeout=3000)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b
        r = run(POSADA, "image", "info", "debian", "--json", env=HOME)
    return json.loads(r.out)


def boot(debian, disk):
    t = Terminal(POSADA, "run", "--timeout", BOOT_SECONDS, "--kernel", debian["kernel"], "--initrd", debian["initrd"],
                 "--append", debian["append"], "-m", "1G", "--disk", disk, env=HOME)
    t.expect(r"root@debian:~# ", BOOT_SECONDS)
    t.send("findmnt -no SOURCE,FSTYPE /; sha256sum </bin/bash; systemctl poweroff\n")
    found = t.expect(r"/dev/vda\S* +ext4[\s\S]*?[0-9a-f]{64}", 120)
    assert t.wait(BOOT_SECONDS) == 0
    return re.search(r"[0-9a-f]{64}", found)[0]


def test_a_debian_disk_goes_through_all_formats_and_boots_from_each():
    debian = image()
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    at, last, sums = debian["disk"], "raw", set()
    for fmt in (*FORMATS, "raw"):
        name = os.path.join(FOLDER, "debian." + fmt)
        posada("disk", "convert", "-q", "-f", last, "-O", fmt, at, name)
        sums.add(boot(debian, f"{name},format={fmt},snapshot=on"))  # nothing of it is kept
        at, last = name, fmt
    assert len(sums) == 1, sums
    assert subprocess.run(["cmp", debian["disk"], at]).returncode == 0, "not byte-equal after all formats"
    shutil.rmtree(FOLDER)


main(globals(), sys.argv[3:])
