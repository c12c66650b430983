"""What every test may use: where there is no program a test needs, it is skipped with that reason.

Where ``CELLMETER_NO_SKIP`` is set (``.ci/run`` sets it, having installed everything), it fails instead.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def need() -> Callable[..., str]:
    """A function that gives the path of a program, or ends the test where there is none."""

    def find(program: str, variable: str | None = None) -> str:
        path = os.environ.get(variable) if variable else None
        path = path or shutil.which(program)
        if path is None or not Path(path).exists():
            reason = f"needs the program {program}" + (f" (or ${variable})" if variable else "")
            if os.environ.get("CELLMETER_NO_SKIP"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find
