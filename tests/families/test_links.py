"""The guide's table of families and links is the code's."""

import re
from pathlib import Path

import pytest

from sklmm import families

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "families.md"
ROWS = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
#: Families without a choice, and a user's own.
ONE = {"Gaussian": "identity", "StudentT": "identity", "Categorical": "softmax"}


@pytest.mark.parametrize(("name", "links"), ROWS)
def test_the_table_of_links_is_what_the_families_take(name, links):
    kind = getattr(families, name)
    if name == "CustomFamily":
        assert links == "yours"
        return
    own = kind.links or (ONE[name],)
    assert links.split(", ") == list(own)
    for link in kind.links:
        kind(link=link).check()
        assert f'"{link}"' in kind.__doc__
    if kind.links:
        with pytest.raises(ValueError, match=f"available: use .*{kind.links[-1]}"):
            kind(link="cauchit").check()


def test_the_table_has_every_family():
    public = {n for n in families.__all__ if isinstance(getattr(families, n), type)}
    assert {name for name, _ in ROWS} >= public - {"Family", "Response"}
