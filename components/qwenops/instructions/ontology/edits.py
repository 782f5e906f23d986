"""People's edits: the filled-in `ontology.csv` as config values.

The table travels as values of the recipe, not as a path, so that the ontology is versioned with the run.
"""

import csv
from pathlib import Path

from pydantic import ValidationError

from qwenops.errors import RecipeError
from qwenops.instructions.ontology.config import Edit


def read_edits(table: Path) -> tuple[Edit, ...]:
    """The edits of a table exported by the stage, in its order; rows without an action are left alone.

    Raises:
        RecipeError: the table lacks a column or holds an unknown action.
    """
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    try:
        return tuple(
            Edit.model_validate({"action": row["action"].strip(), "tag": row["tag"], "into": row["into"].strip()})
            for row in rows
            if row["action"].strip()
        )
    except (KeyError, AttributeError, ValidationError) as error:
        raise RecipeError(
            f"cannot read the edits in {table}",
            expected="columns tag, action (rename, merge, drop), into",
            found=error,
            action="start from the ontology.csv that the stage wrote",
        ) from None
