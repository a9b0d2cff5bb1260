"""--engine=check from power-on to a command in user space: both engines, block by block, without a difference."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA, WORK = sys.argv[1:3]
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}


def test_boot_and_run_a_command():
    os.makedirs(WORK, exist_ok=True)
    b = run(POSADA, "image", "build", "tiny", env=HOME, timeout=600)
    if b.status:
        skip("the image cannot be built: " + b.err.strip().splitlines()[-1])
    r = run(POSADA, "run", "--engine", "check", "--timeout", "15m", "tiny", "--", "sh", "-c", "uname -m; exit 9",
            input=None, env=HOME, timeout=960)
    assert (r.status, r.out, r.err) == (9, "riscv64\n", ""), r


if __name__ == "__main__":
    main(globals(), sys.argv[3:])
