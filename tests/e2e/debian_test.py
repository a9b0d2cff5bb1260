"""The image `debian`, built in a Posada machine from real packages, and what a user expects of it.

Slow: builds the image once into the build folder (minutes), boots it for most tests. Without a mirror all is skipped.
"""
import json, os, re, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run, skip

POSADA, WORK = sys.argv[1:3]
BOOT_SECONDS = 600
os.makedirs(WORK, exist_ok=True)
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}
image = {}


def need_image():
    if not image:
        r = run(POSADA, "image", "info", "debian", "--json", env=HOME)
        if r.status:
            b = run(POSADA, "image", "build", "debian", "--log", WORK + "/debian-build.log", env=HOME, timeout=3000)
            if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
                skip("no package mirror: " + b.err.strip().splitlines()[-1])
            assert b.status == 0, b
            r = run(POSADA, "image", "info", "debian", "--json", env=HOME)
        image.update(json.loads(r.out))
    return image


def guest(script, *args):
    """Run a shell script in a temporary guest."""
    need_image()
    return run(POSADA, "run", "--rm", "--timeout", BOOT_SECONDS, *args, "debian", "--", "sh", "-c", script, env=HOME,
               timeout=BOOT_SECONDS + 30, input=None)


def test_packages_are_configured_and_files_as_shipped():
    r = guest("dpkg --audit; dpkg -l | grep -v ^ii | tail -n +6; dpkg --verify; "
              "systemctl is-system-running --wait; systemctl --failed --no-legend; id -un; pwd; findmnt -no FSTYPE /")
    lines = r.out.splitlines()
    assert r.status == 0 and lines[-3:] == ["root", "/root", "ext4"], r
    assert "degraded" not in r.out and not re.search(r"^\?\?5", r.out, re.M), r


def test_apt_installs_and_a_program_runs():
    r = guest("apt-get -q update >/dev/null && apt-get -qy --no-install-recommends install hello >/dev/null && hello")
    assert r.status == 0 and "Hello, world!" in r.out, r


def test_root_file_system_grows_with_the_disk():
    need_image()
    run(POSADA, "remove", "grown", env=HOME)
    r = run(POSADA, "run", "--timeout", BOOT_SECONDS, "--name", "grown", "--disk-size", "20G", "debian", "--",
            "df", "-B1", "--output=size", "/", env=HOME, timeout=BOOT_SECONDS + 30, input=None)
    assert run(POSADA, "remove", "grown", env=HOME).status == 0
    assert r.status == 0 and int(r.out.split()[-1]) > 18 << 30, r


def test_boots_by_efi_from_the_disk_alone():
    firmware, payload = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin", "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"
    if not os.path.exists(firmware) or not os.path.exists(payload):
        skip("the packages opensbi and u-boot-qemu are not installed")
    need_image()
    t = Terminal(POSADA, "run", "--timeout", BOOT_SECONDS, "--firmware", firmware, "--payload", payload,
                 "--disk", image["disk"] + ",snapshot", env=HOME)
    t.expect(r"root@debian:~# ", BOOT_SECONDS)
    t.send("[ -d /sys/firmware/efi ] && echo by-e''fi; systemctl poweroff\n")
    t.expect(r"by-efi", 60)
    assert t.wait(BOOT_SECONDS) == 0


def test_login_on_the_console_and_power_off():
    need_image()
    t = Terminal(POSADA, "run", "--rm", "debian", env=HOME)
    t.expect(r"root@debian:~# ", BOOT_SECONDS)
    t.send("echo $((6 * 7)); systemctl poweroff\n")
    t.expect(r"42", 60)
    assert t.wait(BOOT_SECONDS) == 0


main(globals(), sys.argv[3:])
