"""From power-on to a command in user space, slowly: every engine with several harts; --engine=check sees no difference."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA, WORK = sys.argv[1:3]
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}


def boot(engine, cpus, script):
    os.makedirs(WORK, exist_ok=True)
    b = run(POSADA, "image", "build", "tiny", env=HOME, timeout=600)
    if b.status:
        skip("the image cannot be built: " + b.err.strip().splitlines()[-1])
    return run(POSADA, "run", "--engine", engine, "--cpus", cpus, "--timeout", "60m", "tiny", "--", "sh", "-c", script,
               input=None, env=HOME, timeout=3660)


def test_check_finds_no_difference():
    for cpus in 1, 2:
        r = boot("check", cpus, "uname -m; nproc; exit 9")
        assert (r.status, r.out, r.err) == (9, f"riscv64\n{cpus}\n", ""), r


def test_each_engine_boots_with_up_to_eight_harts():
    for engine in "jit", "interp":
        for cpus in 1, 2, 4, 8:
            r = boot(engine, cpus, "nproc")
            assert (r.status, r.out, r.err) == (0, f"{cpus}\n", ""), (engine, cpus, r)


if __name__ == "__main__":
    main(globals(), sys.argv[3:])
