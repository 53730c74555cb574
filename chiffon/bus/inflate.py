"""Compressed bodies, read with a limit: kombu would unpack a bomb while it makes the message."""

from __future__ import annotations

import bz2
import contextlib
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from kombu import message as kombu_message

from chiffon.bus.frames import UNREADABLE
from chiffon.bus.letters import DOORBELL
from chiffon.domain.errors import MalformedMessage


def _optional(*names: str) -> Any:
    """The first of these modules that is there, or None."""
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


_ZSTD = _optional("compression.zstd", "backports.zstd")  # the standard library's from 3.14 on; kombu looks there too
_LZMA_MEMORY = 128 * 2**20  # bytes; the header of a tiny xz file may ask for a dictionary of 1.5 GB
_STREAMS = 100  # one after the other in a body; kombu writes one, parallel compressors some
_FAILURES: tuple[type[Exception], ...] = (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError, MemoryError)
if _ZSTD is not None:
    _FAILURES += (_ZSTD.ZstdError,)


class _Decompressor(Protocol):
    """What `bz2`, `lzma` and `zstd` share; for `zlib` see `_Zlib`."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def bounded_decompress(body: bytes, compression: str, limit: int) -> bytes:
    """Unpack ``body``, at most ``limit`` bytes of it.

    Args:
        body: as it arrived.
        compression: the ``compression`` header: one of kombu's names or their aliases.
        limit: bytes, >= 0.

    Raises:
        MalformedMessage: an unknown compression, a body that is not so compressed or not whole, or one that would
            become larger than ``limit``.
    """
    make = _DECOMPRESSORS.get(compression) if isinstance(compression, str) else None
    if make is None:
        raise MalformedMessage(f"unknown compression {compression!r}; known are {', '.join(sorted(_DECOMPRESSORS))}")
    try:
        unpacked = _unpack(make, body, limit)
    except _FAILURES as error:
        raise MalformedMessage(f"the body is not {compression}: {error or type(error).__name__}") from error
    if len(unpacked) > limit:
        raise MalformedMessage(f"the body would become larger than {limit} bytes")
    return unpacked


def message_factory(channel: Any, limit: int) -> Callable[[Any], RawMessage]:
    """What replaces ``channel.message_to_python`` (kombu's): it never raises, and leaves the body as it arrived.

    ``limit``: bytes of a body as it arrived; a larger one, and a message whose properties could not be read, has a
    MalformedMessage in ``errors``, so that kombu's consumer hands it to ``on_decode_error``. A doorbell's body may have
    any size: it is not read.
    """
    channel.auto_decode = False  # py-amqp would turn the body to text by whatever codec its sender named

    def make(raw: Any) -> RawMessage:
        return RawMessage(raw, channel, limit)

    return make


class RawMessage(kombu_message.Message):
    """A kombu message whose ``body`` is the bytes that arrived, compressed if it was, with all headers in place."""

    def __init__(self, raw: Any, channel: Any, limit: int) -> None:
        properties = raw.properties
        headers = properties.pop("application_headers", None) or {}  # else each goes to the pool's processes twice
        body = raw.body if isinstance(raw.body, bytes) else str(raw.body).encode(errors="surrogatepass")
        super().__init__(  # type: ignore[no-untyped-call]
            body=body,
            channel=channel,
            delivery_tag=raw.delivery_tag,
            content_type=properties.get("content_type"),
            content_encoding=properties.get("content_encoding"),
            delivery_info=raw.delivery_info,
            properties=properties,
        )
        self.headers = headers  # later: kombu looks for `compression` in them
        self.errors: list[Any] = []
        if UNREADABLE in self.headers:
            self._refuse(f"its properties cannot be read: {self.headers[UNREADABLE]}")
        elif len(body) > limit and self.headers.get(DOORBELL) is None:
            self._refuse(f"its body of {len(body)} bytes is larger than {limit}")

    def _refuse(self, why: str) -> None:
        error = MalformedMessage(why)
        self.errors.append((MalformedMessage, error, error.__traceback__))


class _Zlib:
    """zlib's decompressor, which takes its limit differently, with the face of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return b""  # kombu's zlib ignores what follows

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(data, max_length)


def _unpack(make: Callable[[], _Decompressor], body: bytes, limit: int) -> bytes:
    """All streams of ``body``, one after the other; one byte more than ``limit`` at most."""
    unpacked = bytearray()
    for _ in range(_STREAMS):
        decompressor = make()
        unpacked += decompressor.decompress(body, limit + 1 - len(unpacked))
        if len(unpacked) > limit:
            return bytes(unpacked)
        if not decompressor.eof:
            raise EOFError("it ends too early")
        body = decompressor.unused_data
        if not body:
            return bytes(unpacked)
    raise ValueError(f"it has more than {_STREAMS} parts")


def _lzma() -> _Decompressor:
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), _Zlib),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), bz2.BZ2Decompressor),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), _lzma),
}
if _ZSTD is not None:
    _DECOMPRESSORS |= dict.fromkeys(("application/zstd", "zstd", "zstandard"), _ZSTD.ZstdDecompressor)
