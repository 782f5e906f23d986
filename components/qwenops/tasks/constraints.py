"""Constraints a program can check: what evolution adds to an instruction and instruction-following feedback verifies.

Each has its words, a check, and a way to know the tightest form that a given text meets, so that a constraint can be
added to an instruction whose answer is known without making the answer wrong.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Constraint:
    """One checkable requirement.

    Attributes:
        name: Short word.
        text: The requirement in words.
        check: Whether a response meets it.
        source: The same check as the source of a Python function `evaluate(response)`, to run in a sandbox.
    """

    name: str
    text: str
    check: Callable[[str], bool]
    source: str


def constraints_met_by(response: str) -> list[Constraint]:
    """Constraints the response meets, tight enough to rule most other texts out."""
    words = len(response.split())
    made = [at_most_words(words), starts_with(response.split()[0]) if words else None]
    made += [ends_with(response[-1])] if response and re.match(r"[.!?。！？]", response[-1]) else []
    made += [no_digits()] if not re.search(r"\d", response) else []
    made += [one_line()] if "\n" not in response else []
    return [constraint for constraint in made if constraint is not None]


def at_most_words(n: int) -> Constraint:
    """At most `n` words between white space."""
    return Constraint(
        "at_most_words",
        f"Use at most {n} words.",
        lambda r: len(r.split()) <= n,
        f"def evaluate(response):\n    return len(response.split()) <= {n}\n",
    )


def starts_with(word: str) -> Constraint:
    """Begins with `word`."""
    return Constraint(
        "starts_with",
        f"Start with: {word}",
        lambda r: r.startswith(word),
        f"def evaluate(response):\n    return response.startswith({word!r})\n",
    )


def ends_with(mark: str) -> Constraint:
    """Ends with `mark`."""
    return Constraint(
        "ends_with",
        f"End with: {mark}",
        lambda r: r.rstrip().endswith(mark),
        f"def evaluate(response):\n    return response.rstrip().endswith({mark!r})\n",
    )


def no_digits() -> Constraint:
    """Holds no digit."""
    return Constraint(
        "no_digits",
        "Use no digits.",
        lambda r: not re.search(r"\d", r),
        "def evaluate(response):\n    return not any(c.isdigit() for c in response)\n",
    )


def one_line() -> Constraint:
    """Is a single line."""
    return Constraint(
        "one_line",
        "Answer in one line.",
        lambda r: "\n" not in r.strip(),
        "def evaluate(response):\n    return chr(10) not in response.strip()\n",
    )
