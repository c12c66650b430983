import re
from pathlib import Path

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Sweep
from cellmeter_scoring.testing import START, make_call, make_cell

README = Path(__file__).parents[2] / "scoring" / "README.md"


def test_the_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = Sweep(sweep_id="s1", spec="", spec_digest="", started_at=START, software_version="0.1.0", host="{}")
    with Log.create("cellmeter.db", "process") as log:
        log.append(sweep, make_cell(), make_call("a", seq=1))
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(block, {})
    assert len(blocks) == 1
    assert "aider × vendor/small 1 of 1 1.0 {} []" in capsys.readouterr().out
