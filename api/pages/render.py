"""Templates, and numbers, times and words in the reader's language."""

import gettext
import io
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request

from api.pages import words
from api.pages.charts import segments, shard_percent

HERE = Path(__file__).parent
LANGUAGE_COOKIE = "guthi_language"
LANGUAGES: Mapping[str, str] = {"en": "English", "ne": "नेपाली"}
_DIGITS = {"en": {}, "ne": str.maketrans("0123456789", "०१२३४५६७८९")}
_EXACT = {"en": "y-MM-dd HH:mm:ss 'UTC'", "ne": "y-MM-dd HH:mm:ss 'UTC'"}


class Language:
    """How one language says things. Codes and member numbers stay as they are: they are names."""

    def __init__(self, code: str) -> None:
        self.code, self.locale, self.digits = code, Locale.parse(code), _DIGITS[code]
        self.translations = _translations(code)

    def gettext(self, text: str) -> str:
        return self.translations.gettext(text)

    def number(self, value: float | Decimal | None, decimals: int = 0) -> str:
        if value is None:
            return "–"
        pattern = self.locale.decimal_formats[None].pattern.split(".")[0] + ("." + "0" * decimals if decimals else "")
        return format_decimal(value, pattern, self.locale).translate(self.digits)

    def money(self, value: str | None) -> str:
        return "–" if value is None else self.number(Decimal(value), 2)

    def day(self, value: str) -> str:
        return format_date(date.fromisoformat(value), "medium", self.locale).translate(self.digits)

    def exact(self, value: str | None) -> str:
        """UTC, so that two who talk about it talk about the same."""
        if value is None:
            return "–"
        return format_datetime(_time(value), _EXACT[self.code], locale=self.locale).translate(self.digits)

    def ago(self, value: str | None) -> str:
        if value is None:
            return "–"
        delta = _time(value) - datetime.now(UTC)
        if abs(delta) < timedelta(seconds=1):
            return self.gettext("now")
        return format_timedelta(delta, add_direction=True, locale=self.locale).translate(self.digits)

    def duration(self, start: str | None, end: str | None) -> str:
        if start is None or end is None:
            return "–"
        seconds = (_time(end) - _time(start)).total_seconds()
        return self.seconds(seconds)

    def seconds(self, seconds: float | None) -> str:
        if seconds is None:
            return "–"
        if seconds < 60:
            return self.gettext("%(n)s s") % {"n": self.number(seconds, 3 if 0 < seconds < 1 else 1 if seconds else 0)}
        if seconds < 3_600:
            return self.gettext("%(n)s min") % {"n": self.number(seconds / 60, 1)}
        return self.gettext("%(n)s h") % {"n": self.number(seconds / 3_600, 1)}

    def left(self, seconds: float | None) -> str:
        """Short, for the line beside a bar."""
        if seconds is None:
            return ""
        form, n = words.time_left(seconds)
        return self.gettext(words.LEFT_SHORT[form]) % {"n": self.number(n)}

    def left_in_words(self, seconds: float | None) -> str:
        if seconds is None:
            return self.gettext(words.UNKNOWN_TIME)
        form, n = words.time_left(seconds)
        return self.gettext(words.LEFT_LONG[form]) % {"n": self.number(n)}


class Renderer:
    """One environment a language: the words are looked up as the template is rendered."""

    def __init__(self) -> None:
        self._environments = {code: _environment(language) for code, language in _LANGUAGES.items()}

    def render(self, language: Language, template: str, what: Mapping[str, Any]) -> str:
        return self._environments[language.code].get_template(template).render(what)


def language_of(request: Request) -> Language:
    """The one that was chosen, or the first of the browser's that there is; else English."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return _LANGUAGES[chosen]
    asked = []
    for part in request.headers.get("Accept-Language", "")[:500].split(","):
        name, _, weight = part.partition(";q=")
        try:
            asked.append((float(weight or 1), name.strip().split("-")[0].lower()))
        except ValueError:
            continue
    best = next((name for _, name in sorted(asked, key=lambda pair: -pair[0]) if name in LANGUAGES), "en")
    return _LANGUAGES[best]


def _environment(language: Language) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_translations(language.translations, newstyle=True)  # type: ignore[attr-defined]
    said: dict[str, Callable[..., Any]] = {
        name: getattr(language, name)
        for name in ("number", "money", "day", "exact", "ago", "duration", "seconds", "left", "left_in_words")
    }
    environment.filters |= said
    environment.filters["word"] = lambda text: language.gettext(words.WORDS.get(text, text))
    environment.globals |= {"language": language, "languages": LANGUAGES, "words": words}
    environment.globals |= {"segments": segments, "shard_percent": shard_percent, "result": _result}
    return environment


def _result(result: Mapping[str, Any] | None) -> str:
    """What a maintenance run came to, in a line."""
    return ", ".join(f"{name}: {value}" for name, value in (result or {}).items()) or "–"


def _translations(code: str) -> gettext.NullTranslations:
    """Read from the `.po` itself: nothing to compile, nothing to go stale."""
    path = HERE / "locale" / code / "LC_MESSAGES" / "guthi.po"
    if not path.exists():
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    with path.open("rb") as file:
        write_mo(compiled, read_po(file, code))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value)


_LANGUAGES = {code: Language(code) for code in LANGUAGES}
