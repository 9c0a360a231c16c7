"""Bytes of the user's files as text: unpacked, and in which encoding they were written."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workbench.errors import DataError
from workbench.fields import shown

COMPRESSED = (".gz", ".bz2", ".xz")
MOST_BYTES = 4 * 1024**3
"""Most bytes that a compressed file may unpack to; a file of zeros packs a thousandfold."""

_CHUNK = 1024**2
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = frozenset(
    "ÀÂÄÇÈÉÊËÍÎÏÑÓÔÖÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüœŒŠšŽžÅÆØÁÃÕ€£§©®°·²³µ«»¿¡½¼¾–—‘’‚“”„…•™´¨×"
)
_SAMPLE = 256 * 1024


@dataclass(frozen=True)
class Decoded:
    """A text, the encoding that it was read in, and whether that one was guessed."""

    text: str
    encoding: str
    guessed: bool = False


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return a file's bytes; one that ends in .gz, .bz2 or .xz is unpacked.

    Raises
    ------
    DataError
        If it cannot be read or unpacked, or unpacks to more than ``most`` bytes.
    """
    opener = _OPENERS.get(path.suffix.lower())
    try:
        if opener is None:
            return path.read_bytes()
        with opener(path, "rb") as stream:
            return _unpacked(path, stream, most)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{str(path)!r} cannot be read: {why}.") from error


def _unpacked(path: Path, stream: IO[bytes], most: int) -> bytes:
    pieces, size = [], 0
    while piece := stream.read(_CHUNK):
        size += len(piece)
        if size > most:
            raise DataError(
                f"{str(path)!r} unpacks to more than {most / 1e9:,.1f} GB, which is no table that"
                " fits into memory; give a part of it."
            )
        pieces.append(piece)
    return b"".join(pieces)


def decode(content: bytes, name: str, encoding: str | None = None) -> Decoded:
    """Return bytes as text.

    Parameters
    ----------
    content : bytes
    name : str
        Of the file, for messages.
    encoding : str, optional
        None: what a byte-order mark says, else UTF-8, else the likeliest one, which is then
        said to be guessed.

    Raises
    ------
    DataError
        If the bytes are no text in the encoding given, or in any that is likely.
    """
    if encoding is not None:
        return Decoded(_decoded(content, name, encoding), encoding)
    for mark, marked in _MARKS:
        if content.startswith(mark):
            return Decoded(_decoded(content, name, marked), marked)
    try:
        return Decoded(content.decode("utf-8"), "utf-8")
    except UnicodeDecodeError as error:
        likely = likely_encoding(content)
        if likely is None:
            raise DataError(_undecodable(name, "utf-8", error, content)) from error
        return Decoded(_decoded(content, name, likely), likely, guessed=True)


def _decoded(content: bytes, name: str, encoding: str) -> str:
    if not isinstance(encoding, str):
        raise DataError(
            f"encoding={shown(encoding)} is not accepted; give a name, such as"
            ' "utf-8", "cp1252" or "utf-16", or leave it out.'
        )
    try:
        utf8 = codecs.lookup(encoding).name == "utf-8"
        return content.decode("utf-8-sig" if utf8 else encoding)
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(name, encoding, error, content)) from error
    except (LookupError, UnicodeError, ValueError) as error:
        raise DataError(
            f"encoding={encoding!r} is no encoding of text that Python knows; give a name such as"
            ' "utf-8", "cp1252" or "utf-16".'
        ) from error


def _undecodable(name: str, encoding: str, error: UnicodeDecodeError, content: bytes) -> str:
    likely = likely_encoding(content)
    advice = (
        f"It looks like {likely}: give encoding={likely!r}, or save it as UTF-8."
        if likely is not None
        else 'Save it as UTF-8, or give its encoding, such as encoding="cp1252" (Windows) or'
        ' encoding="utf-16".'
    )
    return (
        f"{name!r} is not text in {encoding} (byte {error.object[error.start]:#04x} at position"
        f" {error.start:,}). {advice}"
    )


def likely_encoding(content: bytes) -> str | None:
    """Return the likeliest encoding of bytes that are not UTF-8, None if none is likely.

    Western European text of Windows (cp1252, which has what Latin-1 has, and the curly quotes and
    the euro in the place of its control characters) is told by its letters; the others by
    charset-normalizer, which judges the coherence of the languages that it knows.
    """
    for mark, marked in _MARKS:
        if content.startswith(mark):
            return marked
    if b"\0" in content[:_SAMPLE]:
        return _wide(content[:_SAMPLE])
    sample = _whole_lines(content)
    try:
        western: str | None = sample.decode("cp1252")
    except UnicodeDecodeError:
        western = None
    if western is not None and _reads_western(western):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None or best.encoding in ("utf_8", "ascii"):
        return None
    try:
        content.decode(best.encoding)
    except (UnicodeDecodeError, LookupError):
        return None
    return best.encoding


def _wide(sample: bytes) -> str | None:
    """Return which byte order of UTF-16 the zeros of mostly ASCII text lie in."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if max(even, odd) > 0.4 * half and min(even, odd) < 0.1 * half:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _whole_lines(content: bytes) -> bytes:
    """Return lines with bytes beyond ASCII, enough to judge by."""
    if len(content) <= _SAMPLE:
        return content
    lines = [line for line in content.split(b"\n") if not line.isascii()]
    return b"\n".join(lines)[:_SAMPLE]


def _reads_western(text: str) -> bool:
    """Return whether all that is beyond ASCII is Western European, and stands among ASCII."""
    others = [c for c in text if not c.isascii()]
    letters = sum(c.isascii() and c.isalpha() for c in text)
    if any(c not in _WESTERN for c in others) or len(others) > 0.25 * max(letters, 1):
        return False
    # Cyrillic or Greek read so is made of runs of accented capitals and letters.
    return re.search(r"[^\W\d_a-zA-Z]{4}", text) is None
