"""docs/differences.md, statement by statement: each is pinned by a test in a module test_differences_*.py."""

import inspect
import re
from pathlib import Path

import pytest

HERE = Path(__file__)
PAGE = HERE.parents[2] / "docs" / "differences.md"


def test_every_statement_has_a_test_and_every_test_a_statement():
    if not PAGE.parent.is_dir():
        pytest.skip("run from an installed package, without the docs")
    pinned = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    sources = [path.read_text(encoding="utf-8") for path in HERE.parent.glob("test_differences*.py")]
    here = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    assert pinned == here - {inspect.currentframe().f_code.co_name}
