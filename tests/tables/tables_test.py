"""The tables of a PC as others read them: ACPI's by iasl, which disassembles all and compiles the DSDT again; SMBIOS's by
dmidecode. They are what the unit tests leave in files when they are asked to."""
import os, re, shutil, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, skip

PC_TEST, SMBIOS_TEST = (os.path.abspath(a) for a in sys.argv[1:3])


def tool(*argv, **kw):
    path = shutil.which(argv[0], path=os.environ["PATH"] + ":/usr/sbin")
    if not path:
        skip(f"'{argv[0]}' is not installed")
    r = subprocess.run((path, *argv[1:]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    assert r.returncode == 0, (argv, r.stdout)
    return r.stdout


def test_iasl_finds_nothing_wrong_with_acpi():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([PC_TEST, "tables_hang_together"], env=dict(os.environ, POSADA_ACPI_DIR=d), check=True, stdout=subprocess.DEVNULL)
        names = sorted(n[:-4] for n in os.listdir(d))
        assert names == ["APIC", "DSDT", "FACP", "MCFG"], names
        for n in names:
            out = tool("iasl", "-d", n + ".dat", cwd=d)
            with open(f"{d}/{n}.dsl") as f:
                text = f.read()
            assert not re.search(r"error|warning|incorrect|invalid", out + text, re.I), (n, out)
        out = tool("iasl", "DSDT.dsl", cwd=d)
        assert "0 Errors, 0 Warnings" in out, out


def test_dmidecode_reads_smbios():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([SMBIOS_TEST, "structures_follow*"], env=dict(os.environ, POSADA_SMBIOS_FILE=d + "/dmi"), check=True, stdout=subprocess.DEVNULL)
        out = tool("dmidecode", "--from-dump", d + "/dmi")
    for line in ("SMBIOS 3.2.0 present", "Serial Number: inn", "UUID: 00112233-4455-6677-8899-aabbccddeeff", "Core Count: 3", "Maximum Capacity: 64 GB",
                 "Size: 64 GB", "String 3: third", "System is a virtual machine", "Ending Address: 0x0007FFFFFFF", "Range Size: 62 GB"):
        assert line in out, (line, out)
    assert not re.search("<|bad|wrong|truncated|broken", out, re.I), out


main(globals(), sys.argv[3:])
