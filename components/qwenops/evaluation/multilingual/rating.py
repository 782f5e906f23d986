"""The human rating form: export it, read it back, average it.

Section 5.2.4: one professional annotator per language grades each response from 1 to 5; the figure of a language is
the mean over its items, the total is the mean over languages.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean

from qwenops.errors import ContractError

_GRADES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class RatedResponse:
    """One line of the form; `rating` and `annotator` are empty until a person fills them in."""

    id: str
    language: str
    group: str
    prompt: str
    response: str
    rating: str = ""
    annotator: str = ""


def write_form(path: Path, rows: Sequence[RatedResponse]) -> None:
    """Write the form as CSV with a byte order mark, which spreadsheet programs need to read UTF-8."""
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(RatedResponse)])
        writer.writerows([[getattr(row, field.name) for field in fields(RatedResponse)] for row in rows])


def read_form(path: Path) -> list[RatedResponse]:
    """Read a filled form.

    Raises:
        ContractError: a column is missing, a rating is not a whole number from 1 to 5, an annotator is not named, or a
            language has more than one annotator.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [
                RatedResponse(**{field.name: row[field.name] for field in fields(RatedResponse)})
                for row in csv.DictReader(stream)
            ]
    except (OSError, KeyError) as error:
        raise ContractError(
            f"{path} is not a rating form",
            expected=", ".join(field.name for field in fields(RatedResponse)),
            found=error,
            action="fill in the rating_form.csv that this stage wrote",
        ) from None
    for number, row in enumerate(rows, start=2):
        if row.rating.strip() not in _GRADES or not row.annotator.strip():
            raise ContractError(
                f"{path} line {number}",
                expected="a rating of 1, 2, 3, 4 or 5 and the annotator's name",
                found=f"rating {row.rating!r}, annotator {row.annotator!r}",
                action="complete the line or remove it",
            )
    _check_annotators(path, rows)
    return rows


def averages(rows: Sequence[RatedResponse]) -> dict[str, Mapping[str, float]]:
    """{"languages": mean rating per language, "groups": mean per group, "all": {"all": mean over languages}}."""
    languages = {
        language: fmean(int(row.rating) for row in rows if row.language == language)
        for language in sorted({row.language for row in rows})
    }
    groups = {
        group: fmean(int(row.rating) for row in rows if row.group == group)
        for group in sorted({row.group for row in rows})
    }
    return {"languages": languages, "groups": groups, "all": {"all": fmean(languages.values())} if languages else {}}


def _check_annotators(path: Path, rows: Sequence[RatedResponse]) -> None:
    for language in sorted({row.language for row in rows}):
        names = {row.annotator.strip() for row in rows if row.language == language}
        if len(names) > 1:
            raise ContractError(
                f"{path}: several annotators for {language}",
                expected="one annotator per language",
                found=", ".join(sorted(names)),
                action="keep the lines of one annotator",
            )
