"""docs/reference.md is made from the code: it must be what the code says now."""

from docs.generate import REFERENCE, reference


def test_it_is_fresh() -> None:
    assert REFERENCE.read_text() == reference(), "run: python -m docs.generate"
