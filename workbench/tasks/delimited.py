"""Delimited text (CSV, TSV): delimiter, quotes and header are detected, no row is lost unsaid."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.errors import DataError
from workbench.fields import shown

DELIMITERS = (",", ";", "\t", "|")
_SAMPLED = 400
"""Lines that the delimiter is judged by."""


@dataclass(frozen=True)
class Dialect:
    """How fields are written.

    Attributes
    ----------
    delimiter : str
    quote : str
        Around fields; empty where quotes are characters like any other.
    escape : str
        Before a quote that is part of a field; empty where it is doubled.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Return a reader that raises ``csv.Error`` where a quoted field does not end well."""
        options: dict[str, Any] = {"delimiter": self.delimiter, "strict": True}
        if not self.quote:
            options |= {"quoting": csv.QUOTE_NONE, "quotechar": None}
        else:
            options["quotechar"] = self.quote
        if self.escape:
            options |= {"escapechar": self.escape, "doublequote": False}
        return csv.reader(lines, **options)


@dataclass(frozen=True)
class BadRow:
    """A row that is not read as its author meant it: its first line, and why.

    ``line`` is a line of the file, or the number of the row of a table that has no lines; both
    begin with 1.
    """

    line: int
    why: str


@dataclass
class Parsed:
    """What a delimited file holds.

    Attributes
    ----------
    columns : list of str
    rows : list of list of str
        Each as long as ``columns``.
    lines : list of int
        The line of the file that each row begins at, from 1.
    short : dict of int to int
        Fields of the rows that have fewer than columns, by their position in ``rows``.
    bad : list of BadRow
        What is left out of ``rows``.
    dialect : Dialect
    header : bool
        Whether the first row has the names of the columns.
    notes : list of str
        What was detected that is not the usual.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    bad: list[BadRow]
    dialect: Dialect
    header: bool
    short: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Record:
    """Fields, and the lines that they take, counted from 0, the end not included."""

    fields: list[str]
    start: int
    stop: int


class _Feed:
    """Lines one after the other, from any place on."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines, self.at = lines, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.at >= len(self.lines):
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1]


def parse(
    text: str,
    *,
    usual: str = ",",
    delimiter: str | None = None,
    quote: str | None = None,
    header: bool | None = None,
    wanted: Sequence[str] = (),
) -> Parsed:
    """Return the rows of a delimited text.

    Parameters
    ----------
    text : str
    usual : str
        The delimiter where none is likelier.
    delimiter, quote : str, optional
        None: detected. An empty ``quote`` says that quotes are characters like any other.
    header : bool, optional
        Whether the first row has names. None: yes, unless it looks like a row of data.
    wanted : sequence of str
        Columns that will be asked for; a first row that has them is a header.

    Raises
    ------
    DataError
        If an option has a value that is not accepted.
    """
    _check(delimiter, quote)
    lines = io.StringIO(text, newline="").readlines()
    skipped = 0
    if lines and len(lines[0].strip()) == 5 and lines[0].lower().startswith("sep="):
        delimiter, skipped = delimiter or lines[0].strip()[4], 1  # as Excel writes it
    found = delimiter or _likely_delimiter(lines[skipped : skipped + _SAMPLED], quote, usual)
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        return _parsed(lines, skipped, found, quote, header, wanted)
    finally:
        csv.field_size_limit(limit)


def _check(delimiter: str | None, quote: str | None) -> None:
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
        raise DataError(
            f'delimiter={shown(delimiter)} is not accepted; give one character, such as ";" or'
            ' "\\t", or leave it out to have it detected.'
        )
    if quote is not None and (not isinstance(quote, str) or len(quote) > 1):
        raise DataError(
            f"quote={shown(quote)} is not accepted; give one character, an empty text if quotes are"
            " characters like any other, or leave it out."
        )
    if quote and quote == delimiter:
        raise DataError(f"quote={quote!r} is the delimiter, too; give two different characters.")


def _parsed(
    lines: list[str],
    skipped: int,
    delimiter: str,
    quote: str | None,
    header: bool | None,
    wanted: Sequence[str],
) -> Parsed:
    notes: list[str] = []
    usual = Dialect(delimiter, '"' if quote is None else quote)
    records, bad = _all_records(lines, skipped, usual, trusted=quote is not None)
    dialect = usual
    if bad and quote is None:
        where = ", ".join(str(row.line) for row in bad[:5]) + (" …" if len(bad) > 5 else "")
        for other in (replace(usual, escape="\\"), Dialect(delimiter, "")):
            again, still = _all_records(lines, skipped, other, trusted=False)
            if not still and _is_even(again) and (other.quote or not _any_quoted(again)):
                how = (
                    'quotes within fields are read as \\"'
                    if other.quote
                    else "quotes are read as characters like any other"
                )
                notes.append(
                    f"not every quote is part of a pair around a field (line {where}), so {how};"
                    " nothing is left out"
                )
                records, bad, dialect = again, [], other
                break
    return _as_table(records, bad, dialect, header, wanted, notes)


def _as_table(
    records: list[_Record],
    bad: list[BadRow],
    dialect: Dialect,
    header: bool | None,
    wanted: Sequence[str],
    notes: list[str],
) -> Parsed:
    if not records:
        return Parsed([], [], [], bad, dialect, True, notes=notes)
    first = records[0].fields
    if header is None:
        header = bool(wanted) and set(wanted) <= set(first)
        header = header or not _looks_like_data(first, [r.fields for r in records[1:_SAMPLED]])
    body = records[1:] if header else records
    width = len(first) if header else max(len(r.fields) for r in body)
    if not header:
        notes.append(
            "the first row looks like data, not names, so the columns are called"
            f" {', '.join(repr(str(i)) for i in range(width))} (header=True says otherwise)"
        )
    columns = list(first) if header else [str(number) for number in range(width)]
    found = Parsed(columns, [], [], bad, dialect, header, notes=notes)
    for record in body:
        fields = record.fields
        if len(fields) > width and not any(fields[width:]):
            fields = fields[:width]  # delimiters at the end, with nothing behind them
        if len(fields) > width:
            found.bad.append(
                BadRow(
                    record.start + 1,
                    f"has {len(fields)} fields where the header has {width}",
                )
            )
            continue
        if len(fields) < width:
            found.short[len(found.rows)] = len(fields)
            fields = fields + [""] * (width - len(fields))
        found.rows.append(fields)
        found.lines.append(record.start + 1)
    found.bad.sort(key=lambda row: row.line)
    return found


def _all_records(
    lines: list[str], skipped: int, dialect: Dialect, *, trusted: bool
) -> tuple[list[_Record], list[BadRow]]:
    """Return the records of all lines, and where quotes went wrong.

    Behind a quote that goes wrong reading begins again at the next line, so that what it would
    swallow is read. A field of several lines that are rows in themselves is such a quote, unless
    the quotes are ``trusted``.
    """
    records, bad = _read(lines, skipped, len(lines), dialect)
    if not trusted and dialect.quote:
        known = _known_values(records)
        width = len(records[0].fields) if records else 0
        kept: list[_Record] = []
        for record in records:
            if record.stop - record.start > 1 and _swallowed(
                lines[record.start : record.stop], dialect, width, known
            ):
                count = record.stop - record.start
                bad.append(
                    BadRow(
                        record.start + 1,
                        f"has a quote that is closed on line {record.stop} only, so that"
                        f" {count} lines would be one row",
                    )
                )
                inner, more = _read(lines, record.start + 1, record.stop, dialect)
                kept += inner
                bad += more
            else:
                kept.append(record)
        records = kept
    bad.sort(key=lambda row: row.line)
    return records, bad


def _read(
    lines: list[str], start: int, stop: int, dialect: Dialect
) -> tuple[list[_Record], list[BadRow]]:
    records: list[_Record] = []
    bad: list[BadRow] = []
    feed = _Feed(lines if stop == len(lines) else lines[:stop])
    feed.at = start
    reader = dialect.reader(iter(feed))
    while True:
        first = feed.at
        try:
            fields = next(reader)
        except StopIteration:
            return records, bad
        except csv.Error as error:
            why = str(error)
            if "unexpected end" in why:
                why = "has a quote that is never closed"
            elif "expected after" in why:
                why = "has a quote within a field, or one too many"
                if feed.at - first > 1:
                    why = f"has a quote that is closed within line {feed.at}"
            bad.append(BadRow(first + 1, why))
            feed.at = first + 1
            reader = dialect.reader(iter(feed))
            continue
        if any(value.strip() for value in fields) or len(fields) > 1:
            records.append(_Record(fields, first, feed.at))


def _known_values(records: list[_Record]) -> dict[int, set[str]]:
    """Return the values of the columns that repeat themselves, such as labels."""
    single = [r.fields for r in records[1:] if r.stop - r.start == 1]
    width = len(records[0].fields) if records else 0
    found = {}
    for place in range(width):
        values = [fields[place] for fields in single if len(fields) == width]
        distinct = set(values)
        if 2 * len(distinct) <= len(values):
            found[place] = distinct
    return found


def _swallowed(lines: list[str], dialect: Dialect, width: int, known: dict[int, set[str]]) -> bool:
    """Return whether the lines of one record look like rows themselves."""
    plain = [line.rstrip("\r\n") for line in lines]
    rows = [line.split(dialect.delimiter) for line in plain if line.strip()]
    even = sum(len(row) == width for row in rows)
    if width < 2 or even < 0.8 * len(plain) or even < 2:
        return False
    if not known:
        return len(rows) >= 3 and even == len(plain)
    # The first line of a field that has several ends in the middle of its text, not in a label.
    first = rows[0]
    if not all(
        {first[place].strip(dialect.quote), first[place - width].strip(dialect.quote)} & values
        for place, values in known.items()
        if place < len(first)
    ):
        return False
    fitting = sum(
        len(row) == width
        and all(row[place].strip(dialect.quote) in values for place, values in known.items())
        for row in rows
    )
    return 2 * fitting >= len(rows)


def _is_even(records: list[_Record]) -> bool:
    return len({len(record.fields) for record in records}) == 1


def _any_quoted(records: list[_Record]) -> bool:
    """Return whether a field is written between quotes, quotes being read as characters."""
    return any(
        len(value) > 1 and value[0] == value[-1] == '"'
        for record in records
        for value in map(str.strip, record.fields)
    )


def _likely_delimiter(lines: list[str], quote: str | None, usual: str) -> str:
    """Return the delimiter that cuts most lines into as many fields as the first."""
    best, choice = (0.0, 0, 0), usual
    for delimiter in (usual, *(s for s in DELIMITERS if s != usual)):
        if delimiter == quote:
            continue
        score = (0.0, 0, 0)
        for marks in ('"', "") if quote is None else (quote,):
            records, bad = _read(lines, 0, len(lines), Dialect(delimiter, marks))
            width = len(records[0].fields) if records else 0
            if width > 1:
                same = sum(len(record.fields) == width for record in records)
                share = same / max(1, len(records) + len(bad))
                score = max(score, (round(share, 2), width, -len(bad)))
        if score > best:
            best, choice = score, delimiter
    return choice


def _looks_like_data(first: list[str], rest: list[list[str]]) -> bool:
    """Return whether a first row's values are like those below it, not names of them."""
    rest = [row for row in rest if len(row) == len(first)]
    if len(rest) < 3:
        return False
    for place, value in enumerate(first):
        below = [row[place] for row in rest]
        if value.strip() and 2 * len(set(below)) <= len(below) and below.count(value) >= 2:
            return True
        if _is_number(value) and all(_is_number(other) for other in below if other.strip()):
            return any(other.strip() for other in below)
    return False


def _is_number(value: str) -> bool:
    try:
        float(value.replace(",", ".", 1))
    except ValueError:
        return False
    return True
