"""Litmus tests under each engine: litmus_test.py POSADA GUEST ROUNDS. See guest/litmus/litmus.c."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run

POSADA, GUEST, ROUNDS = sys.argv[1:4]
TESTS = 19


def check(engine):
    r = run(POSADA, "run", "--engine", engine, "--firmware", GUEST, "--cpus", "4", "--memory", "64M", "--net", "none",
            "--console", "uart", input=ROUNDS + "\n", timeout=7000)
    lines = r.out.replace("\r", "").splitlines()
    for line in lines:
        print("#", engine, line)
    assert r.status == 0 and lines[-1:] == ["end"], r
    results = lines[:-1]
    assert len(results) == TESTS, results
    wrong = [line for line in results if line.split()[0] not in ("ok", "seen")]
    assert not wrong, wrong


def test_jit_shows_only_what_the_memory_model_allows():
    check("jit")


def test_interpreter_shows_only_what_the_memory_model_allows():
    check("interp")


if __name__ == "__main__":
    main(globals(), sys.argv[4:])
