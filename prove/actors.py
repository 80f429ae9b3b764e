"""Processes in miniature: tasks that can be held between two transactions, and die as by SIGKILL at any call."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

_actor: ContextVar["Actor | None"] = ContextVar("actor", default=None)


class Died(BaseException):  # no error: nothing may catch it, as nothing catches a SIGKILL
    """An actor is no more."""


@dataclass(frozen=True)
class Death:
    """At the nth call to PostgreSQL or Redis from now on: before it has any effect, or after, its answer lost."""

    calls: int
    after: bool


class Actor:
    """What it calls passes `gate`, which `core.calls.intercept` was given."""

    def __init__(self, *, held: bool, death: Death | None = None) -> None:
        self.is_dead = False
        self._held = held
        self._calls, self._after = (death.calls, death.after) if death else (-1, False)
        self._at_gate, self._go = asyncio.Event(), asyncio.Event()
        self.task: asyncio.Task[Any] | None = None

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        context = copy_context()
        context.run(_actor.set, self)
        self.task = asyncio.get_running_loop().create_task(work, context=context)

    @property
    def is_done(self) -> bool:
        return self.task is None or self.task.done()

    async def step(self, death: Death | None = None) -> None:
        """On to the next transaction's begin, or to the end; or to its death."""
        if death is not None:
            self._calls, self._after = death.calls, death.after
        self._at_gate.clear()
        self._go.set()
        await self.rest()

    async def rest(self) -> None:
        """Until it waits at a begin, or has ended."""
        assert self.task is not None
        at_gate = asyncio.ensure_future(self._at_gate.wait())
        await asyncio.wait({self.task, at_gate}, return_when=asyncio.FIRST_COMPLETED)
        at_gate.cancel()

    async def finish(self) -> None:
        """Hold it no longer. Its answer is `result`."""
        self._held = False
        self._go.set()
        assert self.task is not None
        await asyncio.wait({self.task})

    async def die(self) -> None:
        """Where it stands."""
        self.is_dead = True
        await self.finish()

    def result(self) -> Any:
        """What its work returned; None when it died. Raises what it raised."""
        assert self.task is not None
        with contextlib.suppress(Died):
            return self.task.result()
        return None

    async def at(self, name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        if name.startswith("redis:EVAL"):  # the scoreboard's, written by a task beside the work
            if self.is_dead:
                raise ConnectionError("its process is dead")
            return await act()
        if self._held and not self.is_dead and name == "sql:begin":
            self._at_gate.set()
            await self._go.wait()
            self._go.clear()
        if self.is_dead:
            if name == "sql:rollback":  # what the server does when a client is gone
                return await act()
            raise Died
        self._calls -= 1
        if self._calls != -1:
            return await act()
        self.is_dead = True
        if self._after:
            await act()
        raise Died


async def gate(name: str, act: Callable[[], Awaitable[Any]]) -> Any:
    """For `core.calls.intercept`: calls of no actor pass at once."""
    actor = _actor.get()
    return await act() if actor is None else await actor.at(name, act)
