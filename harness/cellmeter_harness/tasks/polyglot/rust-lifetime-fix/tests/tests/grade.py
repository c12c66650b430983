"""Link the pristine tests to the library, and ask it what they cannot be told by heart.

The code under test shares a process with the tests and could print what they would and leave. So their outcome is not
all: the code is given values drawn anew, and its answers are compared here, in a process that it can neither write
for nor read (PR_SET_DUMPABLE, prctl(2)).
"""

import ctypes
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LIBRARY = ["--crate-type", "rlib", "--crate-name", "longest"]


def main():
    protect()
    cases, expected = draw(random.SystemRandom())
    with tempfile.TemporaryDirectory(prefix="grade.", dir="/tmp") as scratch:
        linked = ["--extern", f"longest={scratch}/liblongest.rlib"]
        code = (
            build([*LIBRARY, "--out-dir", scratch, "src/lib.rs"])
            or build(["--test", *linked, "-o", f"{scratch}/grade", str(TESTS / "grade.rs")])
            or run([f"{scratch}/grade"])[0]
            or build([*linked, "-o", f"{scratch}/answers", str(TESTS / "answers.rs")])
        )
        if code != 0:
            return code
        code, output = run([f"{scratch}/answers"], env=os.environ | {"CASES": "\n".join(cases)})
    return code or judge(expected, output)


def build(arguments):
    return run(["rustc", "--edition", "2021", *arguments], stderr=subprocess.STDOUT)[0]


def draw(dice):
    """Pairs of texts, and the longer of each with the side it is on."""
    cases, expected = [], []
    for number in range(20):
        left = "".join(dice.choices("abcdefgh", k=dice.randrange(1, 20)))
        right = "".join(dice.choices("abcdefgh", k=len(left) if number % 5 == 0 else dice.randrange(1, 20)))
        cases.append(f"{left} {right}")
        expected.append(f"right {right}" if len(right) > len(left) else f"left {left}")
    return cases, expected


def protect():
    """Keep processes of the same user away from this one's descriptors and memory, where the system can."""
    try:
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    except AttributeError:
        pass


def run(command, **options):
    """Run a command and pass its output on; its exit code and standard output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace", check=False, **options)
    print(done.stdout, end="", flush=True)
    return done.returncode, done.stdout


def judge(expected, output):
    """Whether the answers, which stand in lines of their own, are the expected ones and no others."""
    answers = [line.removeprefix("answer: ") for line in output.splitlines() if line.startswith("answer: ")]
    if answers != expected:
        print(f"{sum(a != b for a, b in zip(answers, expected))} of {len(expected)} answers are wrong", file=sys.stderr)
        return 1
    print(f"ok: {len(expected)} answers agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
