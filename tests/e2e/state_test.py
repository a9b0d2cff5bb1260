"""A running guest of the image `tiny` is saved and goes on in a new machine, again and again, and is cloned live: see
state_turn.c and live_clone.c."""
import json, os, re, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA, WORK, STATE_TURN, LIVE_CLONE = sys.argv[1:5]
ROUNDS = 8
CLONES = 10
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}


def tiny():
    """Kernel and initrd of the image, which is built if need be."""
    os.makedirs(WORK, exist_ok=True)
    r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
    if r.status:
        b = run(POSADA, "image", "build", "tiny", env=HOME, timeout=600)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b
        r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
    image = json.loads(r.out)
    return image["kernel"], image["initrd"]


def check(program, count):
    r = subprocess.run([program, *tiny(), str(count)], capture_output=True, text=True, timeout=800)
    print("\n".join(line for line in r.stdout.splitlines() if line.startswith("#")))
    assert r.returncode == 0, r.stdout + r.stderr


def test_running_guest_goes_on_in_new_machines():
    check(STATE_TURN, ROUNDS)


def test_live_clones_go_their_own_ways():
    check(LIVE_CLONE, CLONES)


if __name__ == "__main__":
    main(globals(), sys.argv[5:])
