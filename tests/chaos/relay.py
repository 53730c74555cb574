"""A relay before a server: it cuts, delays, falls silent, and lets a yes happen without anybody hearing it.

All relays share one thread with an event loop of its own; every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

CHUNK = 65_536

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""How psycopg2 commits: one simple query."""

PUBLISH = b"\x00\x3c\x00\x28"
"""AMQP's method `basic.publish`: class 60, method 40."""

STATEMENTS = {
    "accept": b"/* bear",
    "claim": b"/* claim */",
    "settle": b"/* settle */",
    "ring": b"/* confirm */",
    "lease": b"WHERE status = 'pending' AND next_ring_at <= (SELECT clock_timestamp())",
    "debts": b"SET debt_leased_until =",
    "cancel": b"cancel_requested_at = clock_timestamp()",
    "replay": b"'replayed' FROM again",
    "takeover": b"/* take_over */",
    "register": b"INSERT INTO agents",
    "rejoin": b"SET backend_pid = pg_backend_pid()",
    "any": b"",
}
"""What stands in a transaction of each kind, and in no other."""

_MARKERS = frozenset(STATEMENTS.values()) - {b""}
_ROWS = re.compile(rb"C\x00\x00\x00.(?:SELECT|UPDATE|DELETE|INSERT 0) (\d+)\x00", re.DOTALL)
"""Postgres' message CommandComplete, which says how many rows a statement has met."""

_READY, _IDLE = b"Z\x00\x00\x00\x05", b"I"
"""Its message ReadyForQuery, which ends each answer; its last byte says whether a transaction is open."""

_TAIL = 500
"""Bytes at the end of an answer in which both are."""

_ANSWER_WITHIN = 5.0


class Relays:
    """The thread in which they all run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._relays: list[Relay] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()

    def before(self, host: str, port: int) -> Relay:
        """A relay before a server."""
        relay = Relay(self._loop, host, port)
        asyncio.run_coroutine_threadsafe(relay.open(), self._loop).result(10)
        self._relays.append(relay)
        return relay

    def close(self) -> None:
        """End every connection, and the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        for relay in self._relays:
            relay.end()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=5)


@dataclass
class _Swallow:
    """An answer that is to be lost: that to ``request``, in a conversation where ``after`` was said before."""

    after: bytes
    request: bytes
    met: Future[None]


class Relay:
    """Stands before one server for one program."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self._loop = loop
        self._server = host, port
        self._listener: asyncio.Server
        self._pairs: set[_Pair] = set()
        self._refusing = False
        self._silent = False
        self.delay = 0.0
        self.swallow: _Swallow | None = None
        self.port = 0

    async def open(self) -> None:
        """Begin to listen, on the event loop."""
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._listener.sockets[0].getsockname()[1]

    def end(self) -> None:
        """Listen no longer, and end every connection, on the event loop."""
        self._listener.close()
        self._cut()

    def cut(self) -> int:
        """End every connection, now; how many there were."""
        return self._ask(self._cut)

    def refuse(self, yes: bool) -> None:
        """Take no connections; those that are open end."""
        self._do(lambda: self._set_refusing(yes))

    def slow_down(self, seconds: float) -> None:
        """Pass everything on that much later, each way; 0: at once."""
        self._do(lambda: setattr(self, "delay", seconds))

    def fall_silent(self, yes: bool) -> None:
        """Take everything and pass nothing on, as a partition does; at its end everything is cut."""
        self._do(lambda: self._set_silent(yes))

    def half_open(self, seconds: float) -> int:
        """Close what is open, but only towards the server: the program hears nothing of it for so many seconds.

        How many connections there were.
        """
        return self._ask(lambda: len([pair.forget_server(seconds) for pair in list(self._pairs)]))

    def swallow_answer(self, after: bytes, request: bytes) -> Future[None]:
        """Lose the next answer to ``request`` and cut the connection; the future is done when that has happened.

        ``after``: what was said before, in the same transaction, and met at least one row. With ``request`` a COMMIT,
        a statement that commits by itself is meant as well.
        """
        met: Future[None] = Future()
        self._do(lambda: setattr(self, "swallow", _Swallow(after, request, met)))
        return met

    def swallow_nothing(self) -> None:
        """Forget about it."""
        self._do(lambda: setattr(self, "swallow", None))

    def _do(self, call: Callable[[], Any]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _ask(self, call: Callable[[], int]) -> int:
        found: Future[int] = Future()
        self._do(lambda: found.set_result(call()))
        return found.result(10)

    def _cut(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.abort()
        return len(pairs)

    def _set_refusing(self, yes: bool) -> None:
        self._refusing = yes
        if yes:
            self._cut()

    def _set_silent(self, yes: bool) -> None:
        self._silent = yes
        for pair in list(self._pairs):
            pair.silent = yes
            if not yes:
                pair.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        pair = _Pair(self, reader, writer)
        self._pairs.add(pair)
        try:
            await pair.carry(self._server, silent=self._silent)
        except OSError:
            pass
        finally:
            pair.abort()
            self._pairs.discard(pair)


class _Pair:
    """One connection, in two halves."""

    def __init__(self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relay = relay
        self._client = reader, writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._over = asyncio.Event()
        self._deaf = False
        self._asked: set[bytes] = set()
        self._met: set[bytes] = set()
        self._answer = b""
        self._idle = False
        self._losing: _Swallow | None = None
        self._kept = b""
        self.silent = False

    def abort(self) -> None:
        """End both halves, without a word."""
        self._over.set()
        for half in (self._client, self._server):
            if half is not None:
                half[1].transport.abort()

    def forget_server(self, seconds: float) -> None:
        """End the server's half; the client's stays, and is answered by nobody."""
        self._deaf = True
        if self._server is not None:
            self._server[1].transport.abort()
        asyncio.get_running_loop().call_later(seconds, self.abort)

    async def carry(self, server: tuple[str, int], *, silent: bool) -> None:
        """Pass bytes both ways until one side ends."""
        if silent:
            self.silent = True
            await self._over.wait()
            return
        self._server = await asyncio.open_connection(*server, limit=CHUNK)
        there = asyncio.ensure_future(self._pass_on(self._client[0], self._server[1], self._heard))
        back = asyncio.ensure_future(self._pass_on(self._server[0], self._client[1], self._answered))
        over = asyncio.ensure_future(self._over.wait())
        halves = {there, back, over}
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            if self.silent:
                await self._over.wait()
            elif self._deaf:
                await asyncio.wait({over, there}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Callable[[bytes], bytes | None]
    ) -> None:
        """``passes``: what of some bytes is to be passed on now; None: nothing more ever."""
        while True:
            try:
                data = await source.read(CHUNK)
            except OSError:
                return
            if not data:
                return
            if self._relay.delay:
                await asyncio.sleep(self._relay.delay)
            if self._deaf or self.silent:
                continue
            passed = passes(data)
            if passed is None:
                return
            sink.write(passed)
            await sink.drain()

    def _heard(self, data: bytes) -> bytes:
        """The client says something. Nothing of that is kept back."""
        swallow = self._relay.swallow
        wanted = {swallow.after} - {b""} if swallow is not None else set()
        said = {marker for marker in _MARKERS | wanted if marker in data}
        if swallow is not None and self._losing is None and self._is_meant(swallow, data, said):
            self._relay.swallow = None
            self._losing = swallow
            asyncio.get_running_loop().call_later(_ANSWER_WITHIN, self._give_up, swallow)
        if COMMIT in data:
            self._met.clear()
        self._met |= said
        self._asked, self._answer = said, b""
        return data

    def _is_meant(self, swallow: _Swallow, data: bytes, said: set[bytes]) -> bool:
        if swallow.request in data:
            return swallow.after in data or swallow.after in self._met
        commits_itself = swallow.request == COMMIT and self._idle and bool(said)
        return commits_itself and (not swallow.after or swallow.after in said)

    def _answered(self, data: bytes) -> bytes | None:
        """The server answers; what the client hears of it. None: nobody hears it, and the connection ends."""
        self._answer = (self._answer + data)[-_TAIL:]
        is_whole = self._answer[: -len(_IDLE)].endswith(_READY)
        if is_whole and (rows := _ROWS.findall(self._answer)) and int(rows[-1]) == 0:
            self._met -= self._asked  # of several statements in one request the last is the work; it met nothing
        if is_whole:
            self._idle = self._answer.endswith(_IDLE)
        return data if self._losing is None else self._kept_back(self._losing, data, is_whole=is_whole)

    def _kept_back(self, losing: _Swallow, data: bytes, *, is_whole: bool) -> bytes | None:
        """Of a statement that commits by itself only the answer says whether there was anything to commit."""
        self._kept += data
        if self._asked and not is_whole:
            return b""
        if self._asked and not self._asked & self._met:
            kept, self._kept, self._losing = self._kept, b"", None
            if self._relay.swallow is None:
                self._relay.swallow = losing
            return kept
        if not losing.met.done():
            losing.met.set_result(None)
        return None

    def _give_up(self, losing: _Swallow) -> None:
        """The server takes too long: the answer is lost all the same."""
        if self._losing is losing:
            self.abort()


def wait_for(met: Future[None], seconds: float) -> bool:
    """Whether it happened in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if met.done():
            return True
        time.sleep(0.05)
    return False
