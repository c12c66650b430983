"""``cellmeter merge`` as a user types it."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from cellmeter_harness.cli import invoke
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call, Record
from cellmeter_scoring.testing import make_call, make_cell


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: str, *rows: Record) -> None:
    with Log.create(path, "process") as log:
        log.append(*rows)


def test_what_was_merged_is_told_on_stderr_and_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.db", make_call("a", seq=1), make_call("b", 2, seq=2, state="open", outcome=None, ended_at=None))
    write("b.db", make_call("b", 2, seq=2), make_cell())
    assert invoke(["merge", "out.db", "a.db", "b.db"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "a.db: 2 rows added, 0 known already",
        "b.db: 1 row added, 1 completed, 0 known already",
        "merged into out.db",
    ]
    with Log.read("out.db") as log:
        assert [call.state for call in log.rows(Call)] == ["closed", "closed"]


def test_conflicts_are_told_one_by_one_with_a_cure(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [make_cell(cell_id=f"c{number:02}") for number in range(25)]
    write("a.db", *cells)
    write("b.db", *(replace(cell, started_at=1) for cell in cells))
    assert invoke(["merge", "out.db", "a.db", "b.db"]) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == f"conflict: cells: c00, 1: started_at is {cells[0].started_at} in OUT, 1 in LOG"
    assert lines[19].startswith("conflict: cells: c19, 1: ")
    assert lines[20] == "… and 5 more"
    assert lines[21].startswith("error: b.db cannot be merged into out.db: cells: c00, 1: ")
    assert lines[-1].startswith("hint: the cell was run twice")
    assert not Path("out.db").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["out.db"], 2, "Missing argument 'LOG...'"),
        ([], 2, "Missing argument 'OUT'"),
        (["a.db", "a.db"], 2, "a.db is the log that is to be written"),
        (["out.db", "none.db"], 1, "there is no log at none.db"),
        (["out.db", "text.txt"], 1, "text.txt is not a cellmeter log"),
        (["text.txt", "a.db"], 1, "text.txt is not a cellmeter log"),
        (["no/out.db", "a.db"], 1, "no/out.db cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    write("a.db", make_call("a", seq=1))
    Path("text.txt").write_text("no database\n" * 100)
    assert invoke(["merge", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert not Path("out.db").exists()
