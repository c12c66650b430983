"""Run the pristine tests in the package, and ask it what they cannot be told by heart.

The code under test shares a process with the tests and could print what they would and leave. So their outcome is not
all: the code is given values drawn anew, and its answers are compared here, in a process that it can neither write
for nor read (PR_SET_DUMPABLE, prctl(2)).
"""

import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SETTINGS = {
    "GO111MODULE": "on",
    "GOENV": "off",
    "GOWORK": "off",
    "GOFLAGS": "",
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
}


def main():
    protect()
    cases, expected = draw(random.SystemRandom())
    with tempfile.TemporaryDirectory(prefix="grade.", dir="/tmp") as directory:
        scratch = Path(directory)
        lay_out(scratch)
        env = {"GOCACHE": f"{scratch}/.cache"} if not {"HOME", "GOCACHE"} & os.environ.keys() else {}
        env = os.environ | env | SETTINGS
        code, _ = run(["go", "test", "-count=1", "-v", "-run", "^TestGreet_", "."], cwd=scratch, env=env)
        if code != 0:
            return code
        command = ["go", "test", "-count=1", "-v", "-run", "^TestAnswers$", "."]
        code, output = run(command, cwd=scratch, env=env | {"CASES": json.dumps(cases)})
    return code or judge(expected, output)


def lay_out(scratch):
    """Take over the sources only: no test file, module file or workspace file of the agent's has a say."""
    for source in Path().glob("*.go"):
        if not source.name.endswith("_test.go"):
            shutil.copyfile(source, scratch / source.name)
    shutil.copyfile(TESTS / "grade.go.mod", scratch / "go.mod")
    for name in ("handler", "answers"):
        shutil.copyfile(TESTS / f"grade_{name}_test.go.txt", scratch / f"{name}_test.go")


def draw(dice):
    """Requests, as method and target, and the status and body of each answer."""
    cases, expected = [], []
    for number in range(20):
        name = "".join(dice.choices("abcdefgh", k=8))
        method = dice.choice(["POST", "PUT", "DELETE"]) if number % 4 == 0 else "GET"
        target = dice.choice(["/", "/?name=", f"/?other={name}"]) if number % 4 == 1 else f"/?name={name}"
        cases.append([method, target])
        if method != "GET":
            expected.append(r'405 "GET only\n"')
        elif f"?name={name}" in target:
            expected.append(rf'200 "Hello, {name}!\n"')
        else:
            expected.append(r'400 "a name is required\n"')
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
