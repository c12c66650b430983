"""``cellmeter verify`` as a user reads it."""

import json
from pathlib import Path

import pytest

from cellmeter_harness.cli import invoke
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt


def test_a_finding_is_a_line_however_many_rows_it_is_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.db"
    with Log.create(path) as log:
        log.append(*(Attempt(call_id=f"call{number:03}", n=1, started_at=1) for number in range(200)))
        log.append(Attempt(call_id="call000", n=3, started_at=1))
    assert invoke(["verify", str(path)]) == 1
    out, err = capsys.readouterr()
    lines = [line.split("  ") for line in out.splitlines()[2:] if line]
    assert [[part.strip() for part in line if part.strip()] for line in lines] == [
        ["sequence gap", "call 'call000' has 2 tries upstream, numbered from 1 to 3", "call000"],
        ["orphan", "a try upstream without its call in the log", "call000 and 199 more"],
    ]
    assert err == ""
    assert invoke(["verify", str(path), "--format", "json"]) == 1
    assert [len(finding["ids"]) for finding in json.loads(capsys.readouterr().out)] == [1, 200]


def test_a_sound_log_is_said_to_be_so_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Log.create(tmp_path / "a.db").close()
    assert invoke(["verify", str(tmp_path / "a.db")]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{tmp_path / 'a.db'} is sound\n")
