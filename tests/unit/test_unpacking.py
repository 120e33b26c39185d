"""Unpacking compressed data in pieces: members, frames, windows, and errors of the file itself."""

import gzip
import io
import struct

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.unpacking import HTTP_WINDOW_MAX_BYTES, PIECE_BYTES, WINDOW_MAX_BYTES, UnpackError, unpacked

TEXT = b"time,device,load\n" * 20_000
SKIPPABLE = struct.pack("<II", 0x184D2A53, 70_000) + bytes(70_000)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def frame(window_descriptor: int, *, rle_blocks: int = 1) -> bytes:
    """Return a frame of zeros in blocks of 128 KiB, with a window descriptor."""
    size = 128 << 10
    blocks = [struct.pack("<I", (size << 3) | (1 << 1) | (n == rle_blocks - 1))[:3] + b"\0" for n in range(rle_blocks)]
    return struct.pack("<IBB", 0xFD2FB528, 0, window_descriptor) + b"".join(blocks)


def window(log: int) -> int:
    return (log - 10) << 3


@pytest.mark.parametrize(
    ("packed", "compression", "expected"),
    [
        (TEXT, "", TEXT),
        (gzip.compress(TEXT) + gzip.compress(b"") + gzip.compress(TEXT), "gzip", TEXT * 2),
        (zstd(TEXT), "zstd", TEXT),
        (SKIPPABLE + zstd(TEXT) + SKIPPABLE + frame(window(17)) + zstd(b"") + zstd(b"x" * 300), "zstd", None),
    ],
)
def test_consecutive_members_and_frames_are_unpacked(packed: bytes, compression: str, expected: bytes | None) -> None:
    expected = TEXT + bytes(128 << 10) + b"x" * 300 if expected is None else expected
    assert b"".join(unpacked(io.BytesIO(packed), compression)) == expected


def test_a_decompression_bomb_is_unpacked_piece_by_piece() -> None:
    bomb = frame(window(20), rle_blocks=1000)
    before = pa.total_allocated_bytes()
    pieces = unpacked(io.BytesIO(bomb), "zstd")
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    assert pa.total_allocated_bytes() <= before + 16 * PIECE_BYTES


@pytest.mark.parametrize("log", [24, 27, 28, 31, 41])
@pytest.mark.parametrize("before", [b"", SKIPPABLE, zstd(TEXT), frame(window(17), rle_blocks=3)])
def test_the_window_of_every_frame_is_limited(log: int, before: bytes) -> None:
    packed = io.BytesIO(before + frame(window(log)))
    with pytest.raises(UnpackError, match=r"a frame needs a window of [\d,]+ bytes, the limit is 8,388,608; compress"):
        list(unpacked(packed, "zstd", window_max_bytes=HTTP_WINDOW_MAX_BYTES))


def test_files_may_have_windows_up_to_arrow_s_limit() -> None:
    assert WINDOW_MAX_BYTES == 1 << 27
    assert b"".join(unpacked(io.BytesIO(frame(window(27))), "zstd")) == bytes(128 << 10)
    with pytest.raises(UnpackError, match="a frame needs a window of 268,435,456 bytes"):
        list(unpacked(io.BytesIO(frame(window(28))), "zstd"))


@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 700))
@settings(deadline=None)
def test_the_result_does_not_depend_on_the_borders_of_pieces(contents: list[bytes], piece_bytes: int) -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(piece_bytes if size is None or size < 0 else min(size, piece_bytes))

    packed = b"".join(zstd(content) for content in contents)
    if packed:
        assert b"".join(unpacked(Dribble(packed), "zstd")) == b"".join(contents)


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_read_error_is_not_reported_as_an_unpack_error(compression: str) -> None:
    class Stale(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")

    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        list(unpacked(Stale(), compression))


@pytest.mark.parametrize(
    ("packed", "compression"),
    [(TEXT, "gzip"), (TEXT, "zstd"), (gzip.compress(TEXT)[:-4], "gzip"), (zstd(TEXT)[:-9], "zstd")],
)
def test_data_that_is_invalid_in_its_compression_is_refused(packed: bytes, compression: str) -> None:
    with pytest.raises(UnpackError, match=f"^cannot be unpacked as {compression}: "):
        list(unpacked(io.BytesIO(packed), compression))
