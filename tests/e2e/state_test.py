"""A running guest of the image `tiny` is saved and goes on in a new machine, again and again: see state_turn.c."""
import json, os, re, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from tap import main, run, skip

POSADA, WORK, STATE_TURN = sys.argv[1:4]
ROUNDS = 8
HOME = {"HOME": WORK, "XDG_DATA_HOME": WORK + "/data", "XDG_CACHE_HOME": WORK + "/cache"}


def test_running_guest_goes_on_in_new_machines():
    os.makedirs(WORK, exist_ok=True)
    r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
    if r.status:
        b = run(POSADA, "image", "build", "tiny", env=HOME, timeout=600)
        if b.status and re.search(r"resolve|connect|network|reach", b.err, re.I):
            skip("no package mirror: " + b.err.strip().splitlines()[-1])
        assert b.status == 0, b
        r = run(POSADA, "image", "info", "tiny", "--json", env=HOME)
    image = json.loads(r.out)
    turn = subprocess.run([STATE_TURN, image["kernel"], image["initrd"], str(ROUNDS)], capture_output=True, text=True,
                          timeout=800)
    print("\n".join(line for line in turn.stdout.splitlines() if line.startswith("#")))
    assert turn.returncode == 0, turn.stdout + turn.stderr


if __name__ == "__main__":
    main(globals(), sys.argv[4:])
