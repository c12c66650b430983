"""A sweep is run once at a time on a log."""

from pathlib import Path

import pytest

from cellmeter_harness.lock import sweep_lock
from cellmeter_proxy.errors import CellmeterError


def test_a_second_run_of_the_same_sweep_is_refused_until_the_first_is_over(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log.db"
    with sweep_lock(log, "a"), sweep_lock(log, "b"), pytest.raises(CellmeterError, match="the sweep a is being run on"):
        sweep_lock(log, "a").__enter__()
    with sweep_lock(log, "a"):
        assert len(list(log.parent.iterdir())) == 1
    assert list(log.parent.iterdir()) == []
