"""Every call of the API with what attackers send: others' ids, and words that mean something to some parser.

The calls, their parameters and their bodies are read from the OpenAPI document, so that a later one is tried as well.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

LONGEST_STREAM_SECONDS, LONGEST_IN_URL = 0.5, 10_000
MARK = "x-injected"
WORDS: Sequence[str] = (
    *(
        "'",
        '"',
        "\\",
        "`",
        "';",
        "--",
        "/*",
        "*/",
        "$$",
        "$1",
        ":tenant_id",
        "%s",
        "%",
        "_",
        "{0}",
        "{{7*7}}",
        "${7*7}",
    ),
    "' OR '1'='1",
    "'; UPDATE tenants SET name = 'taken' --",
    "'); DROP TABLE contributions CASCADE; --",
    "'||(SELECT secret_sha256 FROM api_keys LIMIT 1)||'",
    "x' UNION SELECT secret_sha256::text FROM api_keys --",
    "1; SELECT pg_sleep(30)",
    "E'\\x27'; COMMIT; --",
    "\\'; SET ROLE guthi_owner; --",
    "*\r\nSET guthi taken\r\n",
    "\r\nX-Injected: 1\r\n\r\n",
    "\nX-Injected: 1",
    "%0d%0aX-Injected:%201",
    "\u560d\u560aX-Injected: 1",
    "\0",
    "a\0b",
    "%00",
    "\x7f\x1b[2J",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "..%2f..%2f",
    "=cmd|' /C calc'!A0",
    "\u202egpj.exe",
    "\ufeff",
    "\U0001f480",
    "नेपाल",
    "İ",
    "\ud800",
    "NaN",
    "null",
    "true",
    "-1",
    "1e309",
    "9" * 400,
    "x" * 70_000,
)
_HEADERS = ("Authorization", "If-Match", "If-None-Match", "X-Request-Id", "Host", "Accept", "Content-Type", "Cookie")
_FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Last-Event-ID", "Range", "Expect", "Origin")
_VALUES: Mapping[str, Any] = {
    "code": "Z9",
    "contributionAmount": "1.00",
    "benefitAmount": "1.00",
    "email": "z@example.org",
    "role": "viewer",
    "gender": "O",
    "version": 1,
    "isActive": True,
    "status": "Inactive",
}


@dataclass(frozen=True)
class Call:
    """One operation of the document."""

    method: str
    path: str
    parameters: Sequence[tuple[str, str]]
    """Where each stands, and its name."""
    body: Mapping[str, Any] | None
    """The JSON schema of its body, if it takes one."""
    media_type: str | None


def calls(document: Mapping[str, Any]) -> Iterator[Call]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parameters = [(each["in"], each["name"]) for each in operation.get("parameters", [])]
            content = operation.get("requestBody", {}).get("content", {})
            media_type = next(iter(content), None)
            schema = content[media_type]["schema"] if media_type else None
            yield Call(method.upper(), path, parameters, _resolve(document, schema), media_type)


def body_of(call: Call, ids: Mapping[str, str]) -> dict[str, Any]:
    """One that the schema takes, as far as it is known what its names mean; with one thing to change in a PATCH."""
    assert call.body is not None
    known = call.body.get("properties", {})
    wanted = set(call.body.get("required", ()))
    if call.method == "PATCH":
        wanted |= {"name"} & set(known) or {"status"} & set(known)
    return {name: _VALUES.get(name, ids.get(name, "Z")) for name in known if name in wanted}


class Attacker:
    """Sends as one caller; `wrong` has a line for each answer that must not be."""

    def __init__(self, client: httpx.AsyncClient, ids: Mapping[str, str]) -> None:
        self.wrong: list[str] = []
        self.tried: Counter[str] = Counter()
        self._client, self._ids = client, ids

    async def try_others_ids(self, document: Mapping[str, Any], role: str) -> None:
        """Every call that names a thing, with the ids of another tenant's: as good as unknown, for every role."""
        for call in calls(document):
            named = [name for where, name in call.parameters if where == "path" and name in self._ids]
            if not named:
                continue
            answer = await self.send(call)
            self.tried["calls with another tenant's ids"] += 1
            if answer is None or answer.status_code not in (403, 404):
                self.wrong.append(f"{role}: {call.method} {call.path} of another tenant: {_told(answer)}")

    async def try_words(self, document: Mapping[str, Any], chance: random.Random, most: int) -> None:
        """In every place of every call, `most` of the words."""
        for call in calls(document):
            # Headers are the same for all calls, and so many: one of a few a call, unless everything is asked for.
            headers = [*_HEADERS, *_FORWARDED]
            headers = headers if most >= len(WORDS) else chance.sample(headers, 4)
            places = [*call.parameters, *(("header", name) for name in headers)]
            places += [("body", name) for name in (call.body or {}).get("properties", {})]
            places += [("query", "nobody"), ("body", "nobody"), ("whole body", "")]
            for where, name in places:
                # There are as many headers as all other places, and the same ones for each call.
                for word in chance.sample(
                    WORDS, min(1 if where == "header" and most < len(WORDS) else most, len(WORDS))
                ):
                    self.tried[f"words in {where}"] += 1
                    self._judge(call, where, name, word, await self.send(call, (where, name, word)))

    async def send(self, call: Call, bad: tuple[str, str, str] | None = None) -> httpx.Response | None:
        """A good request but for one place. None: an endless answer, which was left."""
        where, name, word = bad or ("", "", "")
        path = call.path
        for place, parameter in call.parameters:
            if place == "path":
                value = word if (where, name) == ("path", parameter) else self._ids.get(parameter, "sweep")
                path = path.replace(f"{{{parameter}}}", _quoted(value))
        if where == "query":
            path += f"?{quote(name)}={_quoted(word)}"
        headers = {b"Idempotency-Key": b"one"} if call.method == "POST" else {}
        headers |= {b"Content-Type": call.media_type.encode()} if call.media_type else {}
        if where == "header":
            headers[name.encode()] = word.encode("utf-8", "surrogatepass")
        content = self._content(call, where, name, word)
        try:
            async with asyncio.timeout(LONGEST_STREAM_SECONDS if path.endswith("/stream") else 30):
                return await self._client.request(call.method, path, content=content, headers=headers)
        except TimeoutError:
            return None

    def _content(self, call: Call, where: str, name: str, word: str) -> bytes | None:
        if where == "whole body":
            return word.encode("utf-8", "surrogatepass")
        if call.media_type == "text/csv":
            return f"full_name,tier\n{word or 'x'},A\n".encode("utf-8", "surrogatepass")
        if call.body is None:
            return json.dumps({name: word}).encode() if where == "body" else None
        body = body_of(call, self._ids)
        return json.dumps({**body, name: word} if where == "body" else body).encode()

    def _judge(self, call: Call, where: str, name: str, word: str, answer: httpx.Response | None) -> None:
        what = f"{word[:60]!r} in {where} {name} of {call.method} {call.path}"
        if answer is None:
            if not call.path.endswith("/stream"):
                self.wrong.append(f"{what} was not answered")
            return
        if answer.status_code >= 500:
            self.wrong.append(f"{what}: {_told(answer)}")
        if MARK in answer.headers or any("\r" in value or "\n" in value for value in answer.headers.values()):
            self.wrong.append(f"{what} split the headers: {answer.headers}")
        if "html" in answer.headers.get("content-type", ""):
            self.wrong.append(f"{what} was answered with a page")


def _quoted(word: str) -> str:
    """For a URL, as long as a server may take it; what is quoted already stays so."""
    return quote(word[:LONGEST_IN_URL], safe="%", errors="surrogatepass")


def _resolve(document: Mapping[str, Any], schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if schema is None:
        return None
    if "anyOf" in schema:
        return _resolve(document, schema["anyOf"][0])
    if "$ref" in schema:
        found: Mapping[str, Any] = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return found
    return schema


def _told(answer: httpx.Response | None) -> str:
    return "no end" if answer is None else f"{answer.status_code} {answer.text[:200]}"
