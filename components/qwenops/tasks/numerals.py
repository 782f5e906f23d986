"""Numbers as people and models write them, in any script: grouped, with units of thousands, as fractions, in LaTeX.

A text of one number has one reading here, except that a point before three digits groups in the languages that write
1.200 for twelve hundred; `dots_group` says which it is.
"""

import re
import unicodedata
from fractions import Fraction

_DIGITS = r"(?:\d+(?:[.,'’_]\d+)*|[.,]\d+)"
_SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "万": 10**4,
    "萬": 10**4,
    "億": 10**8,
    "亿": 10**8,
}
_CURRENCY = r"[$€£¥₹]"
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]])-\s?)?{_CURRENCY}?(?P<inner>-)?\s?(?P<digits>{_DIGITS})"
    rf"(?:(?:\s(?P<part>\d+))?\s?/\s?(?P<under>\d+)(?![\d/])|(?:\s?[*x]\s?10\s?(?:\^|\*\*)\s?|[eE])(?P<power>[-+]?\d+)"
    rf"|\s?(?P<scale>{'|'.join(_SCALES)})\b|\s?(?P<east>[万萬億亿]))?",
    re.IGNORECASE,
)
_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_LATEX = (
    (re.compile(r"\\[dtc]?frac\s*\{?\s*(\d+)\s*\}?\s*\{?\s*(\d+)\s*\}?"), r" \1/\2"),
    (re.compile(r"\{\s*([.,])\s*\}"), r"\1"),
    (re.compile(r"(?<=\d)(?:\\[,;:! ]|~)(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\(?:text(?:bf|rm|it|sf)?|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot)"), "*"),
    (re.compile(r"\^\{([-+]?\d+)\}"), r"^\1"),
    (re.compile(r"\\(?:left|right|quad|qquad|[,;:! ()\[\]$%])"), " "),
)


def plain_digits(text: str) -> str:
    """`text` with ASCII digits, signs and separators, and LaTeX's spellings of them taken out."""
    text = "".join(_ascii(letter) for letter in text)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    # Spaces group in threes; a narrow one says so itself, a plain one only between digits of one number.
    return re.sub(r"(?<![\d.,])(\d{1,3})((?:[ \u00a0\u2009\u202f]\d{3})+)(?![\d])", _join, text)


def read_number(match: re.Match[str], dots_group: bool = False) -> str:
    """The number of a match of `NUMBER`, as a plain decimal text."""
    text = _decimal(match["digits"], dots_group)
    sign = "-" if match["sign"] or match["inner"] else ""
    if match["under"] and int(match["under"]):
        value = Fraction(int(match["part"] or text.split(".")[0]), int(match["under"]))
        value += Fraction(text) if match["part"] else 0
        return sign + _write(value)
    if match["power"] and abs(int(match["power"])) < 300:
        return sign + _write(Fraction(text) * Fraction(10) ** int(match["power"]))
    scale = match["scale"] or match["east"]
    return sign + (_write(Fraction(text) * _SCALES[scale.lower()]) if scale else text)


def read_word(word: str) -> str:
    """The number of a match of `WORD`."""
    return str(_WORDS.index(word.lower()))


def _ascii(letter: str) -> str:
    if letter in "−﹣－":
        return "-"
    if letter in "，٬":
        return ","
    if letter in "．٫":
        return "."
    if letter in "×✕":
        return "*"
    if letter in "\u00bc\u00bd\u00be":
        value = Fraction(unicodedata.numeric(letter))
        return f" {value.numerator}/{value.denominator}"
    return str(unicodedata.digit(letter)) if letter.isdecimal() else letter


def _join(match: re.Match[str]) -> str:
    return match[1] + re.sub(r"\D", "", match[2])


def _decimal(digits: str, dots_group: bool) -> str:
    text = re.sub(r"['’_]", "", digits)
    if "." in text and "," in text:
        decimal = max(".,", key=text.rfind)
        group = "," if decimal == "." else "."
        text = text.replace(group, "").replace(decimal, ".")
    elif re.fullmatch(r"[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}", text) or text.count(",") > 1:
        text = text.replace(",", "")
    elif text.count(".") > 1 or (dots_group and re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", text)):
        text = text.replace(".", "")
    text = text.replace(",", ".")
    return "0" + text if text.startswith(".") else text


def _write(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else repr(float(value))
