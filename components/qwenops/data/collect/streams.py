"""Unpack a gzip file as it is read: member by member, and with a word on whether its end was there."""

import io
import zlib
from typing import BinaryIO

_BLOCK_BYTES = 1 << 18


class Inflated(io.RawIOBase):
    """The content of all members of a gzip file, as a stream that cannot be wound back.

    Python's own reader raises on a file that was cut short and gives nothing back of the block it was reading; here
    every byte before the cut is read, the stream then ends, and `is_whole` is False.

    Args:
        packed: The file.

    Attributes:
        is_whole: Whether every member that was begun has ended so far.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self.is_whole = True
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
                self.is_whole = False
            piece = self._member.decompress(self._waiting, len(buffer))
            self._waiting = self._member.unconsumed_tail
            if self._member.eof:
                # Some writers pad with zeros between members and at the end.
                self._waiting = self._member.unused_data.lstrip(b"\0")
                self._member = zlib.decompressobj(wbits=31)
                self.is_whole = True
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if not self._waiting:
                self._waiting = self._packed.read(_BLOCK_BYTES)
                if not self._waiting:
                    return 0
                if self.is_whole:
                    self._waiting = self._waiting.lstrip(b"\0")
