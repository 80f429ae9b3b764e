"""A load generator: `python -m bench.load PORT SECONDS CONNECTIONS PATH [HEADER]` prints requests a second.

Raw kept-open connections, one request at a time on each, the answers only counted: it must cost far less than
what it loads.
"""

import asyncio
import sys
import time
from typing import cast

import uvloop


class Connection(asyncio.Protocol):
    """Sends the request again as soon as its answer is whole."""

    answers = 0

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._missing = 0
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is one in all but name
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing == 0:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(self._head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self._missing, self._head = length - len(body), b""
        else:
            self._missing -= len(data)
        if self._missing == 0:
            Connection.answers += 1
            self._transport.write(self._request)


async def load(port: int, seconds: float, connections: int, path: str, header: str = "X-None: 1") -> float:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(request), "127.0.0.1", port)
    await asyncio.sleep(0.5)  # the pools behind it fill
    before, started = Connection.answers, time.perf_counter()
    await asyncio.sleep(seconds)
    answers, took = Connection.answers - before, time.perf_counter() - started
    if not answers:
        raise SystemExit("no answer came: there is nothing to compare")
    return answers / took


if __name__ == "__main__":
    port, seconds, connections, *rest = sys.argv[1:]
    print(uvloop.run(load(int(port), float(seconds), int(connections), *rest)))
