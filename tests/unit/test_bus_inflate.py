"""A compressed body costs no more memory than its limit, and no odd message stops its reader."""

from __future__ import annotations

import bz2
import lzma
import zlib
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from kombu import compression

from chiffon.bus.frames import UNREADABLE
from chiffon.bus.inflate import bounded_decompress, message_factory
from chiffon.bus.letters import DOORBELL
from chiffon.domain.errors import MalformedMessage

KOMBUS = sorted(set(compression.encoders()) | set(compression._aliases))


@pytest.mark.parametrize("name", KOMBUS)
def test_whatever_kombu_packs_is_unpacked(name: str) -> None:
    packed, content_type = compression.compress(b"body" * 1000, name)
    assert bounded_decompress(packed, name, 4000) == b"body" * 1000
    assert bounded_decompress(packed, content_type, 4000) == b"body" * 1000


@pytest.mark.parametrize("name", KOMBUS)
def test_a_bomb_is_refused_one_byte_beyond_the_limit(name: str) -> None:
    packed, _ = compression.compress(bytes(5_000_001), name)
    with pytest.raises(MalformedMessage, match="larger than 5000000 bytes"):
        bounded_decompress(packed, name, 5_000_000)
    assert len(bounded_decompress(packed, name, 5_000_001)) == 5_000_001


@pytest.mark.parametrize("name", KOMBUS)
@pytest.mark.parametrize("damage", [lambda packed: packed[:-3], lambda packed: b"", lambda packed: b"not packed"])
def test_what_is_not_so_packed_or_not_whole_is_malformed(name: str, damage: Any) -> None:
    packed, _ = compression.compress(b"body", name)
    with pytest.raises(MalformedMessage, match="the body is not"):
        bounded_decompress(damage(packed), name, 100)


def test_a_dictionary_of_a_gigabyte_is_not_made() -> None:
    packer = lzma.LZMACompressor(format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    packed = bytearray(packer.compress(b"x") + packer.flush())
    # the dictionary's size is one byte of the block header, which a checksum of its own protects
    header_size = (packed[12] + 1) * 4
    header = packed[12 : 12 + header_size]
    at = header.index(bytes([0x21, 0x01])) + 2
    header[at] = 36  # 1 GiB
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    packed[12 : 12 + header_size] = header
    assert lzma.decompress(bytes(packed)) == b"x"
    with pytest.raises(MalformedMessage, match="Memory usage limit"):
        bounded_decompress(bytes(packed), "xz", 100)


def test_several_parts_are_joined_and_very_many_are_refused() -> None:
    part = bz2.compress(b"ab")
    assert bounded_decompress(part * 3, "bzip2", 100) == b"ababab"
    with pytest.raises(MalformedMessage, match="larger than 5"):
        bounded_decompress(part * 3, "bzip2", 5)
    with pytest.raises(MalformedMessage, match="more than 100 parts"):
        bounded_decompress(bz2.compress(b"") * 101, "bzip2", 100)


@pytest.mark.parametrize("name", ["br0tli", "", "GZIP", None, 3, ["zlib"], b"zlib"])
def test_an_unknown_compression_is_malformed_and_the_known_ones_are_named(name: Any) -> None:
    with pytest.raises(MalformedMessage, match=r"unknown compression .* bzip2, .*zlib"):
        bounded_decompress(b"x", name, 100)


def received(body: Any, **properties: Any) -> Any:
    raw = amqp.Message(body, **properties)
    raw.delivery_info = {"delivery_tag": 7, "exchange": "work", "routing_key": "work_queue"}
    return raw


@pytest.fixture
def channel() -> SimpleNamespace:
    return SimpleNamespace(auto_decode=True, no_ack_consumers=None)


def test_a_compressed_body_stays_as_it_arrived(channel: SimpleNamespace) -> None:
    bomb = zlib.compress(bytes(10_000_000))
    headers = {"compression": "zlib", "task": "echo"}
    message = message_factory(channel, 100_000)(received(bomb, application_headers=headers, content_type="x"))
    assert message.body == bomb
    assert message.headers == headers
    assert message.errors == []
    assert (message.delivery_tag, message.content_type) == (7, "x")


def test_a_body_is_never_turned_to_text(channel: SimpleNamespace) -> None:
    make = message_factory(channel, 100)
    assert channel.auto_decode is False
    assert make(received("")).body == b""
    assert make(received(b"\xff", content_encoding="utf-7")).body == b"\xff"


def test_a_body_over_the_limit_is_an_error_of_the_message_not_of_the_reader(channel: SimpleNamespace) -> None:
    message = message_factory(channel, 10)(received(b"x" * 11))
    with pytest.raises(MalformedMessage, match="11 bytes is larger than 10"):
        message._reraise_error()


def test_a_doorbell_of_any_size_is_heard(channel: SimpleNamespace) -> None:
    message = message_factory(channel, 10)(received(b"x" * 11, application_headers={DOORBELL: 1}))
    assert message.errors == []


def test_properties_that_could_not_be_read_are_an_error_of_the_message(channel: SimpleNamespace) -> None:
    message = message_factory(channel, 10)(received(b"x", application_headers={UNREADABLE: "UnicodeDecodeError"}))
    with pytest.raises(MalformedMessage, match="cannot be read: UnicodeDecodeError"):
        message._reraise_error()
