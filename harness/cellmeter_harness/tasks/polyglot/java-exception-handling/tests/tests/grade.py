"""Compile the class with the pristine tests and run them, and ask it what they cannot be told by heart.

The code under test shares a process with the tests and could print what they would and leave. So their outcome is not
all: the code is given values drawn anew, and its answers are compared here, in a process that it can neither write
for nor read (PR_SET_DUMPABLE, prctl(2)).
"""

import ctypes
import random
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def main():
    protect()
    cases, expected = draw(random.SystemRandom())
    with tempfile.TemporaryDirectory(prefix="grade.", dir="/tmp") as scratch:
        sources = ["src/SafeReader.java", str(TESTS / "SafeReaderTest.java"), str(TESTS / "Answers.java")]
        code, _ = run(["javac", "-proc:none", "-sourcepath", "src", "-d", scratch, *sources])
        code = code or run(["java", "-cp", scratch, "SafeReaderTest"], cwd=scratch)[0]
        if code != 0:
            return code
        code, output = run(["java", "-cp", scratch, "Answers", *cases], cwd=scratch)
    return code or judge(expected, output)


def draw(dice):
    """Sources, as a kind and its text, and what the first line of each is, and that it was closed."""
    cases, expected = [], []
    for number in range(20):
        word = "".join(dice.choices("abcdefgh", k=8))
        kind = ("line", "line", "empty", "broken")[number % 4]
        cases.append(f"{kind}:{word}")
        said = {"line": f"line {word}", "empty": "nothing", "broken": f"error {word}"}[kind]
        expected.append(f"{said} closed")
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
