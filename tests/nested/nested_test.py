"""amd64 machines under KVM, for real: see nested.py. The short form of the suite."""
import os, re, shlex, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from nested import Host
from tap import main

host = Host(*[os.path.abspath(a) for a in sys.argv[1:4]])

GUEST = """uname -m
ls /sys/bus/virtio/drivers/*/ | grep -c virtio
cat /srv/in >/srv/out
printf 'to the disk' | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null
cat /sys/class/misc/hw_random/rng_current
ip addr show eth0 | grep -o 'inet [0-9.]*'
grep -c MSI /proc/interrupts
ls /sys/bus/platform/drivers/vmgenid
cat /sys/class/dmi/id/product_name
exit 7"""


def test_a_guest_boots_and_uses_its_devices():
    out, status = host.run(f"""
mkdir -p share; echo shared >share/in; rm -f share/out; truncate -s 4M disk.raw
posada doctor | grep -w kvm
posada run --rm --arch amd64 --memory 256M -v $PWD/share:/srv --disk disk.raw --timeout 400 tiny -- sh -c {shlex.quote(GUEST)}
echo "guest $?"
cat share/out
head -c 11 disk.raw
echo
""", 500)
    lines = out.splitlines()
    assert status == 0 and re.match(r"ok +kvm +amd64 machines run under KVM", lines[0]), out
    assert "x86_64" in lines and "inet 10.0.2.15" in lines and "virtio_rng.0" in lines, out
    assert "PSDA0001:00" in lines and "Virtual PC" in lines, out
    assert lines[-3:] == ["guest 7", "shared", "to the disk"], out


main(globals(), sys.argv[4:])
