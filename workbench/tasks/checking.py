"""What is in the user's data and what is doubtful about it, before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.tasks.columns import guess_label, guess_text
from workbench.tasks.data import Report, Row
from workbench.tasks.parts import Tables
from workbench.tasks.splits import PARTS, normalise, overlap
from workbench.tasks.tables import Reading, open_table

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel


@dataclass(frozen=True)
class LongTexts:
    """Texts that are longer than what is read of them.

    Attributes
    ----------
    count : int
    share : float
    window : int
        Tokens that are read.
    longest : int
        Tokens of the longest text.
    """

    count: int
    share: float
    window: int
    longest: int


@dataclass(frozen=True)
class DataCheck:
    """What a table of labelled texts holds; ``str`` of it is a page for people.

    Attributes
    ----------
    text, label : str
        The columns, as given or guessed.
    rows : int
        That can be used.
    parts : dict of str to int
        Usable rows of each table: ``"all"`` for one that is split.
    classes : dict of str to int
        Rows per label, the most frequent first.
    empty : dict of str to int
        Rows with nothing in a column that is needed.
    bad_rows : tuple of (int, str)
        Line (or number) of every row that cannot be used, and why.
    duplicates : int
        Rows whose text occurs before, case and spaces aside.
    contradictions : int
        Texts that have more than one label.
    long_texts : LongTexts or None
        None without a model.
    overlap : tuple of str
        Texts that occur in more than one part.
    suspicions : tuple of str
        What looks like a mistake in labels or ids.
    reading : tuple of dict
        How each table was read: encoding, delimiter, quote, header, sheet, notes.
    """

    text: str
    label: str
    rows: int
    parts: dict[str, int]
    classes: dict[str, int]
    empty: dict[str, int]
    bad_rows: tuple[tuple[int, str], ...]
    duplicates: int
    contradictions: int
    long_texts: LongTexts | None
    overlap: tuple[str, ...]
    suspicions: tuple[str, ...]
    reading: tuple[dict[str, Any], ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is to be looked at, as sentences; empty if nothing is."""
        found = []
        if self.bad_rows:
            reasons = Counter(why for _, why in self.bad_rows)
            words = "; ".join(f"{count} {why}" for why, count in reasons.most_common(5))
            lines = ", ".join(str(line) for line, _ in self.bad_rows[:5])
            more = "…" if len(self.bad_rows) > 5 else ""
            found.append(
                f"{len(self.bad_rows)} rows cannot be used: {words} (line {lines}{more}). Mend"
                ' them, or leave them out with on_bad_rows="skip".'
            )
        if self.duplicates:
            found.append(f"{self.duplicates} texts occur before in the same data.")
        if self.contradictions:
            found.append(f"{self.contradictions} texts have more than one label.")
        if self.long_texts is not None and self.long_texts.count:
            long = self.long_texts
            found.append(
                f"{long.count} texts ({100 * long.share:.0f} %) are longer than {long.window}"
                f" tokens and are cut; the longest has {long.longest:,}."
            )
        rare = [name for name, count in self.classes.items() if count < 3]
        if rare:
            found.append(
                f"{len(rare)} labels have fewer than 3 rows ({', '.join(map(repr, rare[:5]))})."
            )
        notes = [f"{table['name']}: {note}." for table in self.reading for note in table["notes"]]
        return (*notes, *found, *self.overlap, *self.suspicions)

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready data."""
        return {**asdict(self), "problems": list(self.problems)}

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows; text {self.text!r}, label {self.label!r}"]
        lines += [f"  {part}: {count:,}" for part, count in self.parts.items() if part != "all"]
        lines.append(f"{len(self.classes)} labels:")
        shown = list(self.classes.items())[:20]
        lines += [f"  {name!r}: {count:,}" for name, count in shown]
        lines += [f"  … and {len(self.classes) - 20} more"] if len(self.classes) > 20 else []
        for table in self.reading:
            how = ", ".join(
                f"{name} {table[name]!r}"
                for name in ("encoding", "delimiter", "quote", "header", "sheet")
                if name in table
            )
            lines += [f"{table['name']}: {how}"] if how else []
        lines += [f"! {problem}" for problem in self.problems] or ["nothing is doubtful"]
        return "\n".join(lines)


def data_check(
    source: Any = None,
    *,
    text: str | None = None,
    label: str | None = None,
    document: str | None = None,
    calibration: Any = None,
    validation: Any = None,
    evaluation: Any = None,
    model: LoadedModel | None = None,
    sequence_length: int = 256,
    encoding: str | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    header: bool | None = None,
    sheet: str | None = None,
) -> DataCheck:
    """Look through labelled texts before a task is made of them; nothing is changed.

    Parameters
    ----------
    source, calibration, validation, evaluation, document
        As for :class:`~workbench.tasks.TextClassification`.
    text, label : str, optional
        Columns; by default those that look like it.
    model : LoadedModel, optional
        Its tokenizer says which texts are longer than the window.
    sequence_length : int
        The window in tokens.
    encoding, delimiter, quote, header, sheet
        How files are read, see :class:`~workbench.tasks.tables.Reading`.

    Raises
    ------
    DataError
        If a table cannot be read at all, or a column does not exist.

    Examples
    --------
    >>> check = data_check({"text": ["a", "b", "b"], "label": ["x", "y", ""]})
    >>> check.rows, check.classes, check.empty
    (2, {'x': 1, 'y': 1}, {'label': 1})
    """
    tables = Tables(
        source,
        {"calibration": calibration, "validation": validation, "evaluation": evaluation},
        Reading(encoding, delimiter, quote, header, sheet, "skip"),
    )
    named = dict(tables.parts) | ({} if tables.pool is None else {"all": tables.pool})
    if text is None or label is None:
        first = next(iter(named.values()), None)
        texts, labels = guessed_columns(first, tables.reading)
        text, label = text or texts, label or labels
    rows = {
        part: tables.rows(table, text=text, label=label, document=document)
        for part, table in named.items()
    }
    everything = [row for found in rows.values() for row in found]
    bad = [(row.line, row.why) for report in tables.reports for row in report.skipped]
    empty = Counter(why for _, why in bad)
    seen = Counter(normalise(row.text) for row in everything)
    labels_of: dict[str, set[str]] = {}
    for row in everything:
        labels_of.setdefault(normalise(row.text), set()).add(row.label)
    return DataCheck(
        text=text,
        label=label,
        rows=len(everything),
        parts={part: len(found) for part, found in rows.items()},
        classes=dict(Counter(row.label for row in everything).most_common()),
        empty={
            column: empty[why]
            for column in (text, label)
            if (why := f"have nothing in the column {column!r}") in empty
        },
        bad_rows=tuple(bad),
        duplicates=sum(count - 1 for count in seen.values()),
        contradictions=sum(len(found) > 1 for found in labels_of.values()),
        long_texts=_long_texts(everything, model, sequence_length),
        overlap=tuple(
            overlap({part: [row.text for row in rows[part]] for part in PARTS if part in rows})
        ),
        suspicions=tuple(_suspicions(everything, document)),
        reading=tuple(_described(report) for report in tables.reports),
    )


def guessed_columns(source: Any, reading: Reading | None = None) -> tuple[str, str]:
    """Return the columns of a table that look like texts and labels."""
    columns = text_columns(source, reading)
    return guess_text(columns), guess_label(columns)


def text_columns(source: Any, reading: Reading | None = None) -> dict[str, list[str]]:
    """Return every column of a table as text; what is missing or no text is empty."""
    table = open_table(source, reading)
    return {
        name: [value if isinstance(value, str) else "" for value in table.texts(place)]
        for place, name in enumerate(table.columns)
    }


def _described(report: Report) -> dict[str, Any]:
    return {**report.to_dict(), "skipped": []}


def _long_texts(rows: Sequence[Row], model: LoadedModel | None, window: int) -> LongTexts | None:
    if model is None or not rows:
        return None
    window = min(window, model.max_length or window)
    texts = [row.text for row in rows]
    ids = model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    lengths = [len(row) for row in ids]
    count = sum(length > window for length in lengths)
    return LongTexts(count, count / len(rows), window, max(lengths))


def _suspicions(rows: Sequence[Row], document: str | None) -> list[str]:
    found = []
    for how, form in (
        ("case or spaces", normalise),
        ("the way that one number is written", _number),
    ):
        groups: dict[str, set[str]] = {}
        for label in {row.label for row in rows}:
            groups.setdefault(form(label), set()).add(label)
        same = sorted(sorted(group) for group in groups.values() if len(group) > 1)
        if same:
            shown = "; ".join(" and ".join(map(repr, group)) for group in same[:3])
            found.append(f"labels differ in {how} alone, and are different ones: {shown}.")
    labels = Counter(row.label for row in rows)
    if len(rows) >= 10 and len(labels) > len(rows) / 2:
        found.append(
            f"the label column has {len(labels):,} values in {len(rows):,} rows, so it looks like"
            " text or ids."
        )
    if document is not None:
        ids = Counter(row.document for row in rows)
        missing = ids.pop("", 0)
        if missing:
            found.append(f"{missing} rows have no {document!r}, and stand for themselves.")
        if len(ids) == 1:
            found.append(f"every row has the same {document!r}, so nothing can be split by it.")
        elif ids and max(ids.values()) == 1:
            found.append(f"every row has a {document!r} of its own, so nothing belongs together.")
        alike = _same_number(ids)
        if alike:
            found.append(f"{document!r} has {alike}, which are different ones.")
    return found


def _number(label: str) -> str:
    try:
        return str(int(label))
    except ValueError:
        return label


def _same_number(ids: Mapping[str, int]) -> str:
    groups: dict[str, list[str]] = {}
    for name in ids:
        groups.setdefault(_number(name), []).append(name)
    same = next((sorted(group) for group in groups.values() if len(group) > 1), None)
    return "" if same is None else " and ".join(map(repr, same))
