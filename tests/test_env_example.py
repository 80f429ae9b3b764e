"""`.env.example` is what people copy: it must list every setting, and nothing else, with its true default."""

from itertools import pairwise
from pathlib import Path

import pytest

from core.settings import Settings

EXAMPLE = Path(__file__).parents[1] / ".env.example"


def _listed() -> list[str]:
    lines = EXAMPLE.read_text().splitlines()
    return [line.partition("=")[0] for line in lines if line and not line.startswith("#")]


def test_it_lists_exactly_the_settings() -> None:
    assert _listed() == [f"GUTHI_{name.upper()}" for name in Settings.model_fields]


def test_its_values_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _listed():
        monkeypatch.delenv(name, raising=False)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


def test_every_setting_is_explained() -> None:
    lines = EXAMPLE.read_text().splitlines()
    bare = [line for before, line in pairwise(lines) if line.startswith("GUTHI_") and not before.startswith("# ")]
    assert bare == []
