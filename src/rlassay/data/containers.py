"""Check that a clip's file is whole, by the sizes that its container states.

Durations alone do not show it: the last bytes may hold little time, and some headers state no duration. For all
containers `clips.py` also compares the stated duration, if there is one, with that of the frames.
"""

import io
import struct
from collections.abc import Callable, Mapping
from io import BufferedIOBase
from pathlib import Path

_SEGMENT = bytes.fromhex("18538067")
"""Identifies the one element of a Matroska file, after its header, that holds everything."""
_BOXES = (b"mdat", b"moov", b"moof")
"""Boxes of an mp4 without which it cannot be read; some programs append bytes that are no box."""
_PACKET = 188
"""Bytes of a packet of an MPEG transport stream."""
_PADDING = 1000
"""Bytes at the end of a gif that may be zeros."""


def is_whole(clip: Path | bytes, container: str) -> bool:
    """Whether a file is complete to its last byte; True if the container does not state its size.

    Args:
        clip: a file, or its content.
        container: FFmpeg's name of its format, such as `matroska,webm`.

    It cannot detect a cut in a Matroska or WebM file that was written as a live stream, whose size is unknown, nor in a
    transport stream that was cut between two packets, or whose packets do not have 188 bytes.

    Source: ISO/IEC 14496-12, section 4.2 (mp4, mov); RFC 8794, section 6, and RFC 9559 (Matroska, WebM); Microsoft,
    AVI RIFF File Reference; ISO/IEC 13818-1, section 2.4.3.2 (transport stream); GIF89a, section 27.
    """
    check = _CHECKS.get(container)
    if check is None:
        return True
    with io.BytesIO(clip) if isinstance(clip, bytes) else clip.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        return check(file, size)


def _gif(file: BufferedIOBase, size: int) -> bool:
    """A gif ends with a semicolon; some programs pad it with zeros."""
    file.seek(max(0, size - _PADDING))
    return file.read().rstrip(b"\0").endswith(b";")


def _matroska(file: BufferedIOBase, size: int) -> bool:
    """The segment states its size, unless it was not known when it was written."""
    file.seek(4)
    header, _ = _ebml_size(file)
    file.seek(file.tell() + header)
    if file.read(4) != _SEGMENT:  # something lies between header and segment, which is rare
        return True
    segment, unknown = _ebml_size(file)
    return unknown or file.tell() + segment <= size


def _ebml_size(file: BufferedIOBase) -> tuple[int, bool]:
    """The size at the file's position, and whether it means unknown: all bits set."""
    first = file.read(1)[0]
    length = 9 - first.bit_length()
    value = int.from_bytes(bytes([first & (1 << (8 - length)) - 1]) + file.read(length - 1), "big")
    return value, value == (1 << 7 * length) - 1


def _transport_stream(file: BufferedIOBase, size: int) -> bool:
    """A transport stream is a sequence of packets, each of which begins with G."""
    first = file.read(_PACKET + 1)
    return first[::_PACKET] != b"GG" or size % _PACKET == 0


def _mp4(file: BufferedIOBase, size: int) -> bool:
    """Boxes follow each other, each with its size; one of size 0 reaches to the end."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if kind in _BOXES and start + length > size:
            return False
        if length < 8:
            return True
        start += length
    return True


def _avi(file: BufferedIOBase, size: int) -> bool:
    """Chunks follow each other, each with its size, padded to an even one.

    A chunk has at most some gigabytes.
    """
    start = 0
    while start + 8 <= size:
        file.seek(start)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):  # other bytes follow, or the size is unknown
            return True
        start += 8 + length
        if start > size:
            return False
        start += length % 2
    return True


_CHECKS: Mapping[str, Callable[[BufferedIOBase, int], bool]] = {
    "avi": _avi,
    "gif": _gif,
    "matroska,webm": _matroska,
    "mov,mp4,m4a,3gp,3g2,mj2": _mp4,
    "mpegts": _transport_stream,
}
