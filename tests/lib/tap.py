"""TAP for tests in Python: every function test_* of the calling module is one test.

    from tap import main, skip, run, Terminal
    def test_x(): assert ...
    main(globals())        arguments: what the tests need, then shell patterns of test names
"""
import fnmatch, importlib.util, os, pty, re, select, signal, struct, fcntl, subprocess, sys, termios, time, traceback


class Skip(Exception):
    pass


def skip(why):
    raise Skip(why)


def end(pid):
    """Have a daemon, no child of ours, end, and wait until it has: until then it holds its files."""
    os.kill(pid, signal.SIGTERM)
    for _ in range(1000):
        try:
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rpartition(")")[2].split()[0] in "ZX":
                    return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} does not end")


def main(module, patterns=()):
    tests = [(n[5:], f) for n, f in module.items() if n.startswith("test_") and callable(f)]
    if patterns:
        tests = [t for t in tests if any(fnmatch.fnmatch(t[0], p) for p in patterns)]
    print(f"1..{len(tests)}", flush=True)
    bad = 0
    for i, (name, fn) in enumerate(tests, 1):
        try:
            fn()
            print(f"ok {i} - {name}", flush=True)
        except Skip as why:
            print(f"ok {i} - {name} # SKIP {why}", flush=True)
        except Exception:
            bad += 1
            print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()), end="")
            print(f"not ok {i} - {name}", flush=True)
    sys.exit(1 if bad else 0)


def use_debian_python(module):
    """Go on in Debian's own Python if that has the module and this one has not."""
    own = "/usr/bin/python3"
    if importlib.util.find_spec(module) or os.path.realpath(sys.executable) == os.path.realpath(own):
        return
    if os.path.exists(own) and not subprocess.run([own, "-c", f"import {module}"], capture_output=True).returncode:
        os.execv(own, [own, *sys.argv])


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"status {self.status}\nstdout: {self.out!r}\nstderr: {self.err!r}"


def run(*argv, input="", timeout=60, env=None, cwd=None):
    """Run a program to its end; text in, text out. input=None: no standard input at all (/dev/null)."""
    r = subprocess.run([str(a) for a in argv], input=input, stdin=subprocess.DEVNULL if input is None else None,
                       capture_output=True, text=True, errors="replace", timeout=timeout, cwd=cwd,
                       env=dict(os.environ, **(env or {})))
    return Result(r.returncode, r.stdout, r.stderr)


class Terminal:
    """A program on a terminal of its own, as its session's leader."""

    def __init__(self, *argv, columns=80, rows=24, env=None):
        self.output = b""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                os.execve(str(argv[0]), [str(a) for a in argv], dict(os.environ, **(env or {})))
            finally:
                os._exit(127)
        self.resize(columns, rows)

    def resize(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def _read(self, seconds):
        if not select.select([self.fd], [], [], max(0, seconds))[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.output += data
        return bool(data)

    def expect(self, pattern, timeout=10):
        """Wait for a regular expression in what was printed since the last match; returns the match's text."""
        end = time.monotonic() + timeout
        while True:
            m = re.search(pattern.encode(), self.output)
            if m:
                self.output = self.output[m.end():]
                return m[0].decode(errors="replace")
            left = end - time.monotonic()
            if left <= 0 or (not self._read(left) and not self._alive()):
                raise AssertionError(f"no {pattern!r} in {self.output[-2000:]!r}")

    def _alive(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def mode(self):
        """(raw, echo) of the terminal."""
        lflag = termios.tcgetattr(self.fd)[3]
        return not lflag & termios.ICANON, bool(lflag & termios.ECHO)

    def kill(self, signo):
        os.kill(self.pid, signo)

    def wait(self, timeout=10):
        """Exit status; minus the signal for a program that died of one."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self._read(0.01)
            if not self._alive():
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.kill(signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {timeout} s; printed {self.output[-2000:]!r}")
