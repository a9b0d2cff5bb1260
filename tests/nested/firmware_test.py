"""PCs under KVM started by firmware, for real: see nested.py. Long: SeaBIOS and OVMF run on an emulated processor."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import pcdisk
from nested import Cpio, Host
from tap import main, skip

host = Host(*[os.path.abspath(a) for a in sys.argv[1:4]])
APPEND = "console=ttyS0 quiet panic=-1"
OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
SEABIOS = ("/usr/share/seabios/bios-256k.bin",)


def material(firmware, *packages):
    """The files of @firmware at their places; the folder of packages; where to put what is made."""
    for f in firmware:
        if not os.path.exists(f):
            skip(f"'{f}' is not installed")
    return {f: f for f in firmware}, host.packages("linux-image-cloud-amd64", "busybox-static", *packages), host.work + "/"


def test_ovmf_boots_a_disk_and_keeps_its_variables():
    files, root, work = material(OVMF, "systemd-boot-efi")
    pcdisk.initrd(root, Cpio, work + "initrd.gz", 'echo "guest: $(nproc) processors"')
    pcdisk.efi_disk(work + "efi.raw", root, work + "initrd.gz", APPEND)
    out, status = host.run("""
posada run --name inn --cpus 2 --memory 256M --firmware ovmf --flash vars.fd --disk /files/efi.raw,format=raw --net none --timeout 600
echo "guest $?"
[ "$(md5sum <vars.fd)" != "$(md5sum </usr/share/OVMF/OVMF_VARS_4M.fd)" ] && echo "variables changed"
""", 800, files=dict(files, **{"efi.raw": work + "efi.raw"}))
    assert "guest: up on Posada, inn" in out and "guest: efi" in out and "guest: 2 processors" in out, out
    assert out.splitlines()[-2:] == ["guest 0", "variables changed"], out


def test_seabios_boots_a_disk_by_ahci_and_a_cd_rom():
    files, root, work = material(SEABIOS, "syslinux", "syslinux-common", "isolinux")
    pcdisk.initrd(root, Cpio, work + "initrd.gz", "cat /proc/cmdline")
    pcdisk.bios_disk(work + "bios.raw", root, work + "initrd.gz", APPEND + " from=disk")
    pcdisk.cdrom(work + "cd.iso", root, work + "initrd.gz", APPEND + " from=cd")
    out, status = host.run("""
run() { posada run --memory 256M --net none --timeout 600 "$@"; echo "guest $?"; }
run --disk /files/bios.raw,format=raw,bus=ahci
run --disk /files/bios.raw,format=raw --cdrom /files/cd.iso --boot cdrom
""", 1500, files=dict(files, **{f: work + f for f in ("bios.raw", "cd.iso")}))
    lines = [w for w in out.split() if w.startswith("from=") or w.isdigit()]
    assert "from=disk" in out and "from=cd" in out and out.count("guest 0") == 2 and "guest: efi" not in out, out
    assert out.index("from=disk") < out.index("from=cd"), lines


def test_a_guest_reboots_through_its_firmware():
    files, root, work = material(SEABIOS, "syslinux", "syslinux-common")
    pcdisk.initrd(root, Cpio, work + "initrd.gz", "reboot -f; sleep 5")
    pcdisk.bios_disk(work + "bios.raw", root, work + "initrd.gz", APPEND)
    out, status = host.run("""
posada run --memory 256M --net none --timeout 600 --cpus 2 --disk /files/bios.raw,format=raw,bus=ahci >log 2>&1 &
i=0; until [ "$(grep -c 'guest: up' log)" -ge 3 ] || [ $((i += 1)) -gt 500 ]; do sleep 1; done
kill $!; wait; cat log
""", 800, files=dict(files, **{"bios.raw": work + "bios.raw"}))
    assert out.count("guest: up") >= 3 and out.count("SYSLINUX 6") >= 3, out


def test_debian_s_installer_starts_from_a_cd_rom():
    files, root, work = material(SEABIOS, "isolinux", "syslinux-common")
    di = host.packages("debian-installer-12-netboot-amd64") + "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/"
    # its own system is up when it starts its log; the questions that follow want a terminal
    pcdisk.cdrom(work + "cd.iso", root, di + "initrd.gz", "console=ttyS0", di + "linux")
    out, status = host.run("""
truncate -s 64M disk.raw
posada run --memory 512M --net none --disk disk.raw,format=raw,bus=ahci --cdrom /files/cd.iso --timeout 900 >log 2>&1 </dev/null &
i=0; until grep -q "Starting system log daemon" log || [ $((i += 1)) -gt 800 ]; do sleep 1; done
kill $!; wait; cat log
""", 1500, files=dict(files, **{"cd.iso": work + "cd.iso"}))
    assert "ISOLINUX 6" in out and "Starting system log daemon" in out, out


AHCI = ("scsi_common", "scsi_mod", "libata", "libahci", "ahci", "crc32_generic", "crc64", "crc64-rocksoft_generic", "crc64-rocksoft", "crct10dif_common",
        "crct10dif_generic", "crc-t10dif", "t10-pi", "sd_mod", "cdrom", "sr_mod")


def test_linux_drives_disks_and_cd_roms_by_ahci():
    root = host.packages("linux-image-amd64", "busybox-static")
    work = host.work + "/"
    script = """sleep 2; dd if=/dev/sda bs=512 skip=8 count=1 2>/dev/null | head -c 8; echo
printf 'to the disk' | dd of=/dev/sda bs=11 count=1 conv=notrunc,fsync 2>/dev/null
dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | head -c 6 | tail -c 5; echo
cat /sys/block/sda/device/model /sys/block/sr0/device/model /sys/block/sda/device/queue_depth; eject /dev/sr0
grep -c ahci /proc/interrupts"""
    pcdisk.initrd(root, Cpio, work + "initrd.gz", script, [m for m in AHCI if pcdisk.module(root, m)])
    with open(work + "sata.raw", "wb") as f:
        f.truncate(8 << 20)
        f.seek(8 * 512)
        f.write(b"ATA-disk")
    with open(work + "cd.iso", "wb") as f: # a volume descriptor is all that is read
        f.write(b"\0" * 32768 + b"\1CD001\1".ljust(2048, b"\0"))
    out, status = host.run(f"""
cp /files/sata.raw sata.raw
posada run --arch amd64 --memory 256M --net none --kernel /files/vmlinuz --initrd /files/initrd.gz --append '{APPEND}' \
  --disk sata.raw,format=raw,bus=ahci --cdrom /files/cd.iso --timeout 600
echo "guest $?"; head -c 11 sata.raw; echo
""", 900, files={"sata.raw": work + "sata.raw", "cd.iso": work + "cd.iso", "initrd.gz": work + "initrd.gz",
                 "vmlinuz": pcdisk.kernel(root)})
    for line in ("ATA-disk", "CD001", "Posada disk", "CD-ROM", "guest 0", "to the disk"):
        assert line in out, (line, out)


main(globals(), sys.argv[4:])
