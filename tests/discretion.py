"""No secret in any output of the suite: every key and token made is remembered, and all that is said is searched."""

import re
import secrets
from collections.abc import Callable
from typing import Any

import jwt

_SHAPES = re.compile(r"guthi_[0-9a-f]{32}_[0-9a-f]{64}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{20,}")
"""A whole API key, or a signed token, whoever made it: also those of other processes."""
_made: set[str] = set()


def remember(*made: str) -> None:
    """From now on these must not be said; what is short could stand there by chance."""
    _made.update(secret for secret in made if len(secret) >= 12)


def remember_what_is_made() -> None:
    """Every random token and every signed one, from whatever part of the application under test."""
    for module, name in ((secrets, "token_hex"), (secrets, "token_urlsafe"), (jwt, "encode")):
        setattr(module, name, _remembering(getattr(module, name)))


def said_in(text: str) -> list[str]:
    """The beginnings of the secrets that stand in a text."""
    found = {*_SHAPES.findall(text), *(secret for secret in _made if secret in text)}
    return sorted(f"{secret[:8]}…" for secret in found)


def _remembering(make: Callable[..., str]) -> Callable[..., str]:
    def made(*arguments: Any, **options: Any) -> str:
        secret = make(*arguments, **options)
        remember(secret)
        return secret

    return made
