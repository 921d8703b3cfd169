"""`make test`: the tests that start a Ray in one process, all others in a second one beside it.

Two Rays on two cores starve each other, so their tests stay in one process. The second process prints as it goes; what
the first one printed follows. Words given here go to both. Exit code: the first that is not 0.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

BOTH = "not slow and not gpu"


def pytest(choice: str, words: list[str], out: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", "-m", f"{BOTH} and {choice}", *words]
    return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT if out is not None else None)


def main(words: list[str]) -> int:
    with tempfile.TemporaryFile() as log:
        beside = pytest("on_ray", words, log.fileno())
        try:
            codes = [pytest("not on_ray", words).wait(), beside.wait()]
        finally:
            beside.terminate()
        log.seek(0)
        print("\n--- the tests that start a Ray ---", flush=True)
        sys.stdout.buffer.write(log.read())
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
