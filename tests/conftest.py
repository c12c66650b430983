"""What every test may use: where there is no program a test needs, it is skipped with that reason.

Where ``CELLMETER_NO_SKIP`` is set (``.ci/run`` sets it, having installed everything), it fails instead.
"""

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn every skip into a failure where nothing may be skipped, whichever mark or call it comes from."""
    report = yield
    if report.skipped and os.environ.get("CELLMETER_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped here: {report.longrepr}"
    return report


@pytest.fixture
def need() -> Callable[..., str]:
    """A function that gives the path of a program, or ends the test where there is none."""

    def find(program: str, variable: str | None = None) -> str:
        path = os.environ.get(variable) if variable else None
        path = path or shutil.which(program)
        if path is None or not Path(path).exists():
            reason = f"needs the program {program}" + (f" (or ${variable})" if variable else "")
            pytest.skip(reason)
        return path

    return find
