"""Run the pristine tests against the library from outside, and ask it what they cannot be told by heart.

The code under test shares a process with the tests and could print what they would and leave. So their outcome is not
all: the code is given values drawn anew, and its answers are compared here, in a process that it can neither write
for nor read (PR_SET_DUMPABLE, prctl(2)).
"""

import ctypes
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
CARGO = ["cargo", "test", "--offline"]


def main():
    protect()
    cases, expected = draw(random.SystemRandom())
    # /tmp, because cargo reads configuration from every parent directory.
    with tempfile.TemporaryDirectory(prefix="grade.", dir="/tmp") as directory:
        scratch = Path(directory)
        lay_out(scratch)
        env = os.environ | {"CARGO_HOME": f"{scratch}/home", "CARGO_TARGET_DIR": f"{scratch}/target"}
        code, _ = run([*CARGO, "--test", "grade"], cwd=scratch, env=env)
        if code != 0:
            return code
        command = [*CARGO, "--quiet", "--test", "answers", "--", "--nocapture"]
        code, output = run(command, cwd=scratch, env=env | {"CASES": "\n".join(cases)})
    return code or judge(expected, output)


def lay_out(scratch):
    """Take over the sources only: no build script, no configuration of cargo and no test of the workspace has a say."""
    shutil.copytree("src", scratch / "src", symlinks=True)
    shutil.copyfile(TESTS / "grade.Cargo.toml", scratch / "Cargo.toml")
    (scratch / "tests").mkdir()
    for name in ("grade.rs", "answers.rs"):
        shutil.copyfile(TESTS / name, scratch / "tests" / name)


def draw(dice):
    """Cases, as lists of numbers of which some hold a word, and what is to be read from each."""
    cases, expected = [], []
    for number in range(20):
        fields = [str(dice.randrange(-(10**12), 10**12)) for _ in range(dice.randrange(1, 7))]
        bad = dice.randrange(len(fields)) if number % 2 else None
        if bad is not None:
            fields[bad] = "".join(dice.choices("abcdefgh", k=8))
        cases.append(",".join(f" {field}" if dice.randrange(2) else f"{field} " for field in fields))
        expected.append("ok " + ",".join(fields) if bad is None else f"bad {bad} {fields[bad]}")
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
