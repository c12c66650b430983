import re
from pathlib import Path

import pytest

from cellmeter_proxy.canonical import request_hash
from cellmeter_proxy.log import Log, digest_of, make_blob
from cellmeter_proxy.record import Sweep
from cellmeter_scoring.testing import START, make_call, make_cell

README = Path(__file__).parents[2] / "scoring" / "README.md"


def test_the_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    usage = '{"prompt_tokens": 1000, "completion_tokens": 100}'
    request, answer = make_blob(b'{"model": "vendor/small"}'), make_blob(b'{"usage": ' + usage.encode() + b"}")
    call = make_call(
        "a",
        seq=1,
        request_model="vendor/small",
        body_hash=request.digest,
        request_hash=request_hash(b'{"model": "vendor/small"}'),
        request_blob=request.digest,
        response_blob=answer.digest,
        usage=usage,
    )
    sweep = Sweep(
        sweep_id="s1", spec="", spec_digest=digest_of(b""), started_at=START, software_version="0.1.0", host="{}"
    )
    with Log.create("cellmeter.db", "process") as log:
        log.append(sweep, make_cell(failure_class="none"), call, request, answer)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(block, {})
    assert len(blocks) == 1
    assert "aider × vendor/small 1 of 1 1.0 {} []" in capsys.readouterr().out
