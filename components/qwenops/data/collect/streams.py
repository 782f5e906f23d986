"""Unpack a gzip file as it is read: member by member, and with a word on whether each was whole."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal

_BLOCK_BYTES = 1 << 18
_MEMBER = b"\x1f\x8b\x08"

_HELD_BYTES = 1 << 22

# A stretch of content and "" for good content, "lost" for that of a damaged member, "damaged" (with b"") where a member
# of which content has been given already turns out to be damaged.
Chunk = tuple[bytes, Literal["", "damaged", "lost"]]


def stream_chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """A stream in pieces; none is damaged."""
    while block := stream.read(_BLOCK_BYTES):
        yield block, ""


def gzip_chunks(packed: BinaryIO) -> Iterator[Chunk]:
    """The content of the members of a gzip file, a member at a time where it is not too large to be held.

    A checksum stands behind its content, so what is given at once is known to be whole. Members after a damaged one are
    found by the bytes that a member begins with. A file that was cut short gives what there is and ends.
    """
    waiting, content = b"", bytearray()
    member, begun, given = zlib.decompressobj(wbits=31), False, False
    while waiting or (waiting := packed.read(_BLOCK_BYTES)):
        ended = False
        try:
            content += member.decompress(waiting, _BLOCK_BYTES)
            waiting, begun, ended = member.unconsumed_tail, True, member.eof
        except zlib.error:
            yield (b"", "damaged") if given else (bytes(content), "lost")
            # What was fed may hold the begin of the next member, behind that of this one where it began here.
            waiting = _from_next_member(waiting, 0 if begun else 1, packed)
            member, begun, given = zlib.decompressobj(wbits=31), False, False
            content.clear()
        if ended or len(content) > _HELD_BYTES:
            yield bytes(content), ""
            given = True
            content.clear()
        if ended:
            waiting = member.unused_data.lstrip(b"\0")
            member, begun, given = zlib.decompressobj(wbits=31), False, False
    if content:
        yield bytes(content), ""


def _from_next_member(waiting: bytes, start: int, packed: BinaryIO) -> bytes:
    while (place := waiting.find(_MEMBER, start)) < 0:
        more = packed.read(_BLOCK_BYTES)
        if not more:
            return b""
        waiting, start = waiting[-len(_MEMBER) + 1 :] + more, 0
    return waiting[place:]


class GzipReader(io.RawIOBase):
    """The content of all members of a gzip file, as a stream that cannot be wound back.

    Python's own reader raises on a file that was cut short and gives nothing back of the block it was reading; here
    every byte before the cut is read, the stream then ends, and `broke_off` is True.

    Args:
        packed: The file.

    Attributes:
        broke_off: Whether the file has ended within a member; False as long as nobody has read so far.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self.broke_off = False
        self._within_member = False
        self._packed = packed
        self._member = zlib.decompressobj(wbits=31)
        self._waiting = b""

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from its start; 0 at the end.

        Raises:
            zlib.error: the content is damaged, which a cut is not.
        """
        while True:
            if self._waiting:
                self._within_member = True
            piece = self._member.decompress(self._waiting, len(buffer))
            self._waiting = self._member.unconsumed_tail
            if self._member.eof:
                # Some writers pad with zeros between members and at the end.
                self._waiting = self._member.unused_data.lstrip(b"\0")
                self._member = zlib.decompressobj(wbits=31)
                self._within_member = False
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if not self._waiting:
                self._waiting = self._packed.read(_BLOCK_BYTES)
                if not self._waiting:
                    self.broke_off = self._within_member
                    return 0
                if not self._within_member:
                    self._waiting = self._waiting.lstrip(b"\0")
