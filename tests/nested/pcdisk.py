"""Disks that a PC's firmware boots, made of Debian's packages with mtools: a boot loader, Debian's kernel, and an initrd
whose only program reports and powers off."""
import glob, os, shutil, struct, subprocess, uuid, zlib

SECTOR = 512
START = 2048  # the partition's first sector
MIB = 1 << 20

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
for m in $(cat /modules/order 2>/dev/null); do insmod /modules/$m; done
echo "guest: up on $(cat /sys/class/dmi/id/sys_vendor), $(cat /sys/class/dmi/id/product_serial)"
[ -d /sys/firmware/efi ] && echo "guest: efi"
%s
poweroff -f
"""


def module(root, name):
    """Its file; None: built in, or not of this kernel."""
    return next(iter(glob.glob(f"{root}/lib/modules/*/kernel/**/{name}.ko", recursive=True)), None)


def initrd(root, cpio, path, script, modules=()):
    """At @path: busybox, and kernel modules of @root in their order, then @script."""
    c = cpio(path)
    for d in ("proc", "sys", "dev"):
        c.dirs.add(d)
        c.add(d, 0o40755)
    c.add("dev/console", 0o20600, device=(5, 1))
    c.add("init", 0o100755, (INIT % script).encode())
    c.file("bin/busybox", root + "/bin/busybox")
    for m in modules:
        c.file(f"modules/{m}.ko", module(root, m), 0o100644)
    c.add("modules/order", 0o100644, "".join(m + ".ko\n" for m in modules).encode())
    c.close()


def kernel(root):
    return glob.glob(root + "/boot/vmlinuz-*")[0]


def _mtools(path, *argv):
    env = dict(os.environ, MTOOLS_SKIP_CHECK="1")
    subprocess.run([argv[0], "-i", f"{path}@@{START * SECTOR}", *argv[1:]], env=env, check=True, stdout=subprocess.DEVNULL)


def _format(path, size):
    with open(path, "wb") as f:
        f.truncate(size)
    _mtools(path, "mformat", "-T", str(size // SECTOR - 2 * START), "-v", "BOOT", "::")


def _put(path, files):
    """@files: name below the root of the file system → a file's path, or its content."""
    made = set()
    for name, content in files.items():
        parts = name.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            d = "/".join(parts[:i])
            if d not in made:
                made.add(d)
                _mtools(path, "mmd", "::/" + d)
        if isinstance(content, bytes):
            with open(path + ".part", "wb") as f:
                f.write(content)
            content = path + ".part"
        _mtools(path, "mcopy", content, "::/" + name)
    if os.path.exists(path + ".part"):
        os.unlink(path + ".part")


def _gpt(path, kind):
    """One partition of type @kind, from START to as far before the end."""
    sectors = os.path.getsize(path) // SECTOR
    last = sectors - START - 1
    entry = uuid.UUID(kind).bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ", START, last, 0) + "boot".encode("utf-16le").ljust(72, b"\0")
    entries = entry.ljust(128 * 128, b"\0")
    disk = uuid.uuid4().bytes_le

    def header(here, there, table):
        h = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, here, there, 34, sectors - 34, disk, table, 128, 128, zlib.crc32(entries))
        return (h[:16] + struct.pack("<I", zlib.crc32(h)) + h[20:]).ljust(SECTOR, b"\0")

    protective = b"\0" * 446 + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xee, b"\xff\xff\xff", 1, sectors - 1) + b"\0" * 48 + b"\x55\xaa"
    with open(path, "r+b") as f:
        f.write(protective + header(1, sectors - 1, 2) + entries)
        f.seek((sectors - 33) * SECTOR)
        f.write(entries + header(sectors - 1, 1, sectors - 33))


def efi_disk(path, root, initrd_path, append):
    """A GPT disk with an EFI system partition: systemd-boot starts the kernel as an EFI program."""
    _format(path, 48 * MIB)
    _gpt(path, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    _put(path, {
        "EFI/BOOT/BOOTX64.EFI": root + "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        "loader/loader.conf": b"timeout 0\n",
        "loader/entries/debian.conf": f"title Debian\nlinux /vmlinuz\ninitrd /initrd.gz\noptions {append}\n".encode(),
        "vmlinuz": kernel(root),
        "initrd.gz": initrd_path,
    })


def bios_disk(path, root, initrd_path, append):
    """An MBR disk: its boot record starts SYSLINUX, which loads the kernel by the BIOS."""
    _format(path, 48 * MIB)
    sectors = os.path.getsize(path) // SECTOR
    _put(path, {
        "syslinux.cfg": f"default debian\nprompt 0\nlabel debian\nkernel /vmlinuz\ninitrd /initrd.gz\nappend {append}\n".encode(),
        "vmlinuz": kernel(root),
        "initrd.gz": initrd_path,
    })
    subprocess.run([root + "/usr/bin/syslinux", "--offset", str(START * SECTOR), "--install", path], check=True)
    with open(root + "/usr/lib/syslinux/mbr/mbr.bin", "rb") as f:
        code = f.read().ljust(440, b"\0")
    with open(path, "r+b") as f:
        f.write(code + b"\0" * 6 + struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0xc, b"\xff\xff\xff", START, sectors - 2 * START) + b"\0" * 48 + b"\x55\xaa")


def cdrom(path, root, initrd_path, append, kernel_path=None):
    """A CD-ROM that a BIOS boots: ISOLINUX by El Torito, without emulation of a disk."""
    tree = path + ".tree"
    os.makedirs(tree, exist_ok=True)
    for name, source in {"isolinux.bin": root + "/usr/lib/ISOLINUX/isolinux.bin", "ldlinux.c32": root + "/usr/lib/syslinux/modules/bios/ldlinux.c32",
                         "vmlinuz": kernel_path or kernel(root), "initrd.gz": initrd_path}.items():
        shutil.copyfile(source, f"{tree}/{name}")
    with open(tree + "/isolinux.cfg", "w") as f:
        f.write(f"default debian\nprompt 0\nlabel debian\nkernel /vmlinuz\ninitrd /initrd.gz\nappend {append}\n")
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-V", "POSADA", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot",
                    "-boot-load-size", "4", "-boot-info-table", "-o", path, tree], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(tree)
