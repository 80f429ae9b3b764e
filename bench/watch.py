"""Watchers of one cycle: `python -m bench.watch PORT HOW_MANY PATH HEADER`.

Says `connected` once each of them has its first event, and at last how many of them were told of the end.
"""

import asyncio
import sys

import uvloop

PATIENCE_SECONDS = 60


async def main(port: int, how_many: int, path: str, header: str) -> None:
    connected = asyncio.Semaphore(0)
    watching = [asyncio.create_task(_watch(port, path, header, connected)) for _ in range(how_many)]
    for _ in range(how_many):
        await connected.acquire()
    print("connected", flush=True)
    told = 0
    if watching:
        done, _ = await asyncio.wait(watching, timeout=PATIENCE_SECONDS)
        told = sum(task.result() for task in done)
    print(told, flush=True)


async def _watch(port: int, path: str, header: str, connected: asyncio.Semaphore) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\r\n".encode())
    is_first = True
    while line := await reader.readline():
        if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
            raise SystemExit(line.decode())
        if line.startswith(b"data:"):
            if is_first:
                connected.release()
            is_first = False
            if b'"status":"Active"' in line:
                writer.close()
                return True
    return False


if __name__ == "__main__":
    port, how_many, path, header = sys.argv[1:]
    uvloop.run(main(int(port), int(how_many), path, header))
