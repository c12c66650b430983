"""Run the pristine tests; the code under test runs in a process of its own.

Each call goes to a fresh interpreter as JSON and its result comes back as JSON, so that the code
under test can neither write for the test runner nor read it (PR_SET_DUMPABLE, prctl(2)). Run isolated (-I): nothing in the workspace,
such as a module with the name of a standard one, is imported here.
"""

import ctypes
import importlib.util
import json
import subprocess
import sys
import types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
MODULE, TESTS = "sorter", 6

WORKER = """
import importlib, json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path.insert(0, sys.argv[1])
arguments = json.load(sys.stdin)
result = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])(*arguments)
json.dump(result, answer)
answer.flush()
"""


def remote(function):
    def call(*arguments):
        command = [sys.executable, "-I", "-B", "-c", WORKER, str(SOURCE), MODULE, function]
        done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            raise AssertionError(f"{function} failed: {done.stderr.strip()[-500:]}")
        return json.loads(done.stdout)

    return call


def protect():
    """Keep processes of the same user away from this one's descriptors and memory, where the system can."""
    try:
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    except AttributeError:
        pass


def main():
    protect()
    stand_in = types.ModuleType(MODULE)
    stand_in.__getattr__ = remote
    sys.modules[MODULE] = stand_in
    spec = importlib.util.spec_from_file_location(f"test_{MODULE}", HERE / f"test_{MODULE}.py")
    tests = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tests
    spec.loader.exec_module(tests)
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromModule(tests))
    if not result.wasSuccessful() or result.testsRun != TESTS:
        return 1
    print(f"ok: {result.testsRun} tests passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
