"""The table of long test files names files that are there."""

from tests.architecture.places import ROOT
from tests.durations import LONG, MAKES_SMOKE


def test_every_file_of_the_table_is_there():
    assert [name for name in [*LONG, MAKES_SMOKE] if not (ROOT / "tests" / name).is_file()] == []
    assert MAKES_SMOKE in LONG
