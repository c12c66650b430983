import subprocess
import sys
from types import MappingProxyType

import cellmeter_scoring
from cellmeter_scoring import METHODOLOGIES


def test_scoring_loads_no_network_library() -> None:
    code = "import sys, cellmeter_scoring; print({'aiohttp', 'mitmproxy', 'scipy'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_every_promised_name_is_there() -> None:
    assert all(hasattr(cellmeter_scoring, name) for name in cellmeter_scoring.__all__)


def test_the_methodologies_cannot_be_changed() -> None:
    assert isinstance(METHODOLOGIES, MappingProxyType)
    assert list(METHODOLOGIES) == ["cab-0.1", "cellmeter-1"]
    assert all(methodology.__struct_config__.frozen for methodology in METHODOLOGIES.values())
