"""Two languages: every word has its translation, and numbers are written as each language writes them."""

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import api.pages
from api.pages.render import Language
from api.pages.words import time_left
from tests.api.pages.conftest import Browser

HERE = Path(api.pages.__file__).parent
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
OPTIONS = {"templates/**.html": {"newstyle_gettext": "true"}}


def said() -> set[str]:
    found = extract_from_dir(HERE, METHODS, OPTIONS)
    return {text for _, _, texts, _, _ in found for text in ([texts] if isinstance(texts, str) else texts)}


def test_every_word_is_there_in_nepali_with_the_same_gaps() -> None:
    with (HERE / "locale/ne/LC_MESSAGES/guthi.po").open("rb") as file:
        catalogue = read_po(file, "ne")
    known: dict[str, str] = {}
    for message in catalogue:
        assert not message.fuzzy or not message.id, message.id
        if isinstance(message.id, tuple):  # one, and many
            known |= dict(zip(message.id, message.string, strict=True))
        elif message.id:
            known[str(message.id)] = str(message.string)
    assert len(said()) > 200
    assert said() == set(known), "see babel.cfg for how to extract them"
    gaps = re.compile(r"%\(\w+\)s")
    for word, translation in known.items():
        assert translation.strip(), f"no Nepali for {word!r}"
        assert sorted(gaps.findall(word)) == sorted(gaps.findall(translation)), word


def test_numbers_and_times_are_written_as_each_language_does() -> None:
    english, nepali = Language("en"), Language("ne")
    assert (english.number(1234567), nepali.number(1234567)) == ("1,234,567", "१२,३४,५६७")
    assert (english.money("500000.00"), nepali.money("500000.00")) == ("500,000.00", "५,००,०००.००")
    assert english.number(None) == nepali.money(None) == "–"
    assert english.exact("2025-01-31T23:59:58.123456Z") == "2025-01-31 23:59:58 UTC"
    assert nepali.exact("2025-01-31T23:59:58Z") == "२०२५-०१-३१ २३:५९:५८ UTC"
    assert (english.day("2025-01-31"), nepali.day("2025-01-31")) == ("Jan 31, 2025", "२०२५ जनवरी ३१")
    assert english.left(130) == "2 min left" and nepali.left(130) == "२ मि बाँकी"
    assert english.left_in_words(130) == "about 2 more minutes"


@pytest.mark.parametrize(
    ("seconds", "form"),
    [
        *((0, ("done", 0)), (0.2, ("seconds", 1)), (59, ("seconds", 59)), (60, ("minute", 1)), (130, ("minutes", 2))),
        *((5_000, ("minutes", 83)), (10_000, ("hours", 3)), (1_000_000, ("hours", 278))),
    ],
)
def test_time_left_is_told_roughly(seconds: float, form: tuple[str, int]) -> None:
    assert time_left(seconds) == form


ASKED = {
    "ne": "ne",
    "ne-NP,ne;q=0.9,en;q=0.8": "ne",
    "en;q=0.5,ne;q=0.9": "ne",
    "de,fr": "en",
    "": "en",
    "*": "en",
    ";q=x,,,ne;q=-,en": "en",
    "ne" * 40_000: "en",
}


async def test_the_browser_says_which_language(browser: Browser) -> None:
    for asked, given in ASKED.items():
        page = await browser.get("/sign-in", headers={"Accept-Language": asked})
        assert f'<html lang="{given}">' in page.text, asked[:30]


async def test_a_choice_stays(admin: Browser) -> None:
    answer = await admin.get("/language/ne?back=/jobs%3Fstate%3DFailed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=Failed")
    page = (await admin.get("/jobs")).text
    assert '<html lang="ne">' in page and "कामहरू" in page
    await admin.get("/language/<script>")  # changes nothing
    assert '<html lang="ne">' in (await admin.get("/jobs")).text
    await admin.get("/language/en")
    assert '<html lang="en">' in (await admin.get("/jobs", headers={"Accept-Language": "ne"})).text
