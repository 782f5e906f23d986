"""A linear model of offensive text over the quality classifier's n-grams, trained from lines that people labelled.

No labelled set comes with the project: the packages that can be installed without a hub ship word lists or pickled
models and not the labels, and word lists drop medicine and news. So a recipe names its own file.
"""

import json
from pathlib import Path
from typing import Any

from qwenops.data.quality.classifier import Examples, Model, train
from qwenops.data.quality.config import ClassifierConfig, OffensiveConfig
from qwenops.errors import ContractError, RecipeError

_MIN_OF_EACH = 10


def train_offensive(config: OffensiveConfig, features: ClassifierConfig) -> tuple[Model, float]:
    """Train on the labelled lines.

    Returns:
        The model, and its out-of-fold AUC.

    Raises:
        RecipeError: there is no such file.
        ContractError: a line is not a labelled text, or there are too few of a label.
    """
    path = Path(config.labelled)
    if not path.is_file():
        raise RecipeError(
            "quality.offensive.labelled is not a file",
            expected="JSONL with text and label",
            found=config.labelled,
            action="name an existing file, or leave it empty to keep the score off",
        )
    rows = [_row(line, number, path) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
    labels = [row["label"] for row in rows]
    if min(labels.count(0), labels.count(1)) < _MIN_OF_EACH:
        raise ContractError(
            f"{path}: too few labelled texts",
            expected=f"at least {_MIN_OF_EACH} of each label",
            found=f"{labels.count(1)} offensive, {labels.count(0)} not",
            action="label more lines",
        )
    ids = [str(number) for number in range(len(rows))]
    model, areas = train(Examples(ids, [row["text"] for row in rows], labels, ["passed"] * len(rows)), features)
    return model, areas["all"]


def _row(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
        valid = isinstance(row["text"], str) and row["label"] in (0, 1)
    except (ValueError, TypeError, KeyError):
        valid = False
    if not valid:
        raise ContractError(
            f"{path}, line {number}: not a labelled text",
            expected='{"text": "...", "label": 0 or 1}',
            found=line[:80],
            action="correct the line",
        )
    return row
