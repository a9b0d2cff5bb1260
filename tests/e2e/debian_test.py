"""The image `debian`, built in a Posada machine from real packages, and what a user expects of it.

Slow: builds the image once into the build folder (minutes), boots it for most tests. Without a mirror all is skipped.
"""
import hashlib, json, os, re, shutil, socket, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import Terminal, main, run, skip

POSADA, WORK = sys.argv[1:3]
BOOT_SECONDS = 600
WORK_SECONDS = 2400
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
    return run(POSADA, "run", "--rm", "--timeout", WORK_SECONDS, *args, "debian", "--", "sh", "-c", script, env=HOME,
               timeout=WORK_SECONDS + 30, input=None)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_packages_are_configured_and_files_as_shipped():
    r = guest("dpkg --audit; dpkg -l | grep -v ^ii | tail -n +6; dpkg --verify; "
              "systemctl is-system-running --wait; systemctl --failed --no-legend; id -un; pwd; findmnt -no FSTYPE /")
    lines = r.out.splitlines()
    assert r.status == 0 and lines[-3:] == ["root", "/root", "ext4"], r
    assert "degraded" not in r.out and not re.search(r"^\?\?5", r.out, re.M), r


def test_apt_installs_and_a_program_runs():
    r = guest("apt-get -q update >/dev/null && apt-get -qy --no-install-recommends install hello >/dev/null && hello")
    assert r.status == 0 and "Hello, world!" in r.out, r


INSTALL = ("export DEBIAN_FRONTEND=noninteractive; apt-get -q update >/dev/null && "
           "apt-get -qy --no-install-recommends install %s >/tmp/apt.log 2>&1 || { tail -5 /tmp/apt.log; exit 1; }; ")


def test_fio_reads_back_what_it_wrote():
    disk = WORK + "/fio.raw"
    with open(disk, "wb") as f:
        f.truncate(256 << 20)
    jobs = [f"--filename=/dev/vdb --direct=1 --rw={rw} --ioengine={e} --size=64M --fsync=200 {sizes}"
            for rw, e, sizes in [("randrw", "libaio --iodepth=32", "--bsrange=512-128k"),
                                 ("randwrite", "io_uring --iodepth=16", "--bs=4k"),
                                 ("write", "psync --numjobs=4 --offset_increment=64M", "--bs=256k")]]
    jobs.append("--directory=/root --rw=randwrite --ioengine=mmap --bs=4k --size=64M")
    script = "set -e; " + INSTALL % "fio"
    for n, job in enumerate(jobs):
        script += f"fio --name=j --verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=json --output=/tmp/o {job}; "
        script += "sed -n 's/^ *\"error\" : */error /p; s/^ *\"total_err\" : */error /p' /tmp/o; "
    r = guest(script, "-c", "2", "--disk", disk)
    os.unlink(disk)
    errors = re.findall(r"^error (\d+)", r.out, re.M)
    assert r.status == 0 and len(errors) >= len(jobs) and not any(map(int, errors)), r


def test_iperf3_goes_both_ways_through_the_network():
    iperf = shutil.which("iperf3") or skip("iperf3 is not installed")
    server = subprocess.Popen([iperf, "-s", "-p", str(port := free_port())], stdout=subprocess.DEVNULL)
    try:
        r = guest(INSTALL % "iperf3" + f"for way in '' -R; do iperf3 -c 10.0.2.2 -p {port} -t 5 -J $way; done")
    finally:
        server.kill()
        server.wait()
    rates = [float(x) for x in re.findall(r'"sum_received":\s*{[^}]*"bits_per_second":\s*([\d.e+]+)', r.out)]
    print("# guest to host, host to guest: " + ", ".join(f"{x / 1e6:.0f} Mbit/s" for x in rates))
    assert r.status == 0 and len(rates) == 2 and min(rates) > 0, r


def test_a_gibibyte_through_the_shared_folder():
    folder = WORK + "/gibibyte"
    os.makedirs(folder, exist_ok=True)
    digest = hashlib.sha256()
    with open(folder + "/in", "wb") as f:
        for _ in range(64):
            f.write(block := os.urandom(16 << 20))
            digest.update(block)
    try:
        r = guest("cp /srv/in /root/copy && cp /root/copy /srv/out && sha256sum </srv/out", "-v", folder + ":/srv")
        with open(folder + "/out", "rb") as f:
            copied = hashlib.file_digest(f, "sha256").hexdigest()
    finally:
        shutil.rmtree(folder)
    assert r.status == 0 and r.out.split()[0] == copied == digest.hexdigest(), (r, copied, digest.hexdigest())


def test_gcc_compiles_and_python_passes_its_own_tests():
    program = "#include <math.h>\n#include <stdio.h>\nint main(void) { printf(\"%.17g\\n\", sqrt(2)); }\n"
    r = guest("set -e; " + INSTALL % "gcc libc6-dev python3 '^libpython3[.][0-9]+-testsuite$'" +
              f"printf '%s' '{program}' >/tmp/a.c; gcc -O2 -o /tmp/a /tmp/a.c -lm; /tmp/a; cd /tmp; "
              "python3 -m test test_float test_math test_struct test_threading test_mmap", "-c", "2", "-m", "2G")
    assert r.status == 0 and r.out.startswith("1.4142135623730951\n") and "Result: SUCCESS" in r.out, r


def test_root_file_system_grows_with_the_disk():
    need_image()
    run(POSADA, "delete", "grown", env=HOME)
    r = run(POSADA, "run", "--timeout", BOOT_SECONDS, "--name", "grown", "--disk-size", "20G", "debian", "--",
            "df", "-B1", "--output=size", "/", env=HOME, timeout=BOOT_SECONDS + 30, input=None)
    assert run(POSADA, "delete", "grown", env=HOME).status == 0
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
