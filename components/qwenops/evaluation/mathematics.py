"""Whether two mathematical answers are the same: by MATH's own string rules, else as expressions by Math-Verify."""

import re
import threading

from math_verify import parse, verify

from qwenops.evaluation.answers import same_number
from qwenops.tasks.numerals import NUMBER, plain_digits, read_number

# A power of a power, or of five digits, is not computed: a response could ask for a number that fills the memory.
_HUGE = re.compile(r"(?:\^|\*\*)[^,;=]*(?:\^|\*\*)|(?:\^|\*\*)\s*[({]?\s*\d{4,}|\d{4,}\s*\\?!|!\s*\)?\s*!")
_LONGEST = 400
_SECONDS = 3


def same_math(left: str, right: str) -> bool:
    """Whether two MATH answers are equal; an empty answer equals nothing.

    Math-Verify measures its time by a signal, which only the main thread of a process can receive; elsewhere it runs
    without that limit, on answers that `_HUGE` and their length keep small.

    Args:
        left: An answer, as `answers.final_math` finds it.
        right: The reference.
    """
    plain_left, plain_right = normalise_math(left), normalise_math(right)
    if not plain_left or not plain_right:
        return False
    if plain_left == plain_right or same_number(_number(plain_left), _number(plain_right)):
        return True
    if max(len(left), len(right)) > _LONGEST or _HUGE.search(left) or _HUGE.search(right):
        return False
    seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
    found = parse(f"$\\boxed{{{left}}}$", parsing_timeout=seconds)  # pyright: ignore[reportArgumentType]  # None is no limit
    reference = parse(f"$\\boxed{{{right}}}$", parsing_timeout=seconds)  # pyright: ignore[reportArgumentType]  # None is no limit
    return verify(reference, found, timeout_seconds=seconds)


def normalise_math(answer: str) -> str:
    r"""Normalise a MATH answer by the rules of its authors' `is_equiv`.

    Spacing, units in `\text`, dollar, percent and degree signs, `\left` and `\right`, `dfrac` and `tfrac`, `\frac12`,
    `\sqrt3`, a leading ".", "x = " in front, and a/b as `\frac{a}{b}`.
    """
    text = answer.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac").replace("\\left", "").replace("\\right", "")
    text = text.replace("^{\\circ}", "").replace("^\\circ", "").replace("\\$", "").replace("$", "")
    text = re.sub(r"\\text\{ .*?\}$", "", text)
    text = re.sub(r"\\text\{(.*?)\}", r"\1", text)
    text = text.replace("\\%", "").replace("%", "")
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text)
    sides = text.split("=")
    text = sides[1] if len(sides) == 2 and len(sides[0].strip()) <= 2 else text
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", text.replace(" ", ""))
    text = re.sub(r"\\frac(\w)\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\{[^{}]*\})(\w)", r"\1{\2}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return re.sub(r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}", text).strip().removesuffix(".")


def _number(text: str) -> str:
    """The decimal number that a whole answer is; empty for any other answer."""
    match = NUMBER.fullmatch(plain_digits(text).strip())
    return read_number(match) if match else ""
