"""The answer in a chat model's response: which number, label or expression its words end with.

Official scorers look for one spelling ("####", "the answer is"); chat models use many, in many languages. An answer
that is marked wins over one that is not, the last mark over earlier ones, except "####": of a response that goes on
with further questions the first counts, as in GSM8K's own scorer.
"""

import re

from qwenops.tasks.evalset_readers import last_boxed
from qwenops.tasks.numerals import NUMBER, WORD, plain_digits, read_number, read_word

_THOUGHTS = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_NEXT_ITEM = re.compile(r"\n\s*(?:Question|Q|Problem|Human|User)\s*:", re.IGNORECASE)
_NOUNS = (
    r"answer|choice|option|result|solution|antwort|lösung|ergebnis|réponse|reponse|resposta|respuesta|resultado|"
    r"risposta|antwoord|odpowiedź|cevap|jawaban|đáp án|ответ|відповідь|jibu|答案|答え|答|正解|选项|選項|정답|답|"
    r"الجواب|الإجابة|คำตอบ|উত্তর|సమాధానం|उत्तर|תשובה"
)
_VERBS = r"is|are|was|be|would be|should be|must be|equals|=|ist|lautet|est|es|é|è|sono|son|jest|adalah|là|ni|это|равен"
_UNSPACED_VERBS = r"是|为|為|は|은|는|هو|هي|คือ|হল|হলো|है"
_MARK = re.compile(
    rf"(?:{_NOUNS})(?:\s+(?:finale?|correct|number|richtige|correcta|choice|option))?[\s*_\"'`»]*"
    rf"(?:(?:(?:{_VERBS})(?![a-zà-ÿ])|{_UNSPACED_VERBS})[\s*_]*[:：]?|[:：—–]|-\s)",
    re.IGNORECASE,
)
_CHOSEN = re.compile(r"\b(?:i(?:'d| would)? (?:choose|chose|pick|select|go with)|选择?|選擇)[\s:：*]*", re.IGNORECASE)
_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.IGNORECASE | re.DOTALL)
_SHARPS = re.compile(r"^[ \t]*####[ \t]*([^\n]*\d[^\n]*)", re.MULTILINE)
_HEADING = re.compile(r"\d+[.):]\s+\D|(?i:step|question|part)\b")
_CLAUSE = re.compile(
    r"[;\n。；]|\.(?=\s|$)|[!?](?=\s|$)|\s(?:because|since|as|where|weil|car|porque)\s|[,(]\s?(?:because|since|as)\b|\s\((?=[a-z=≈])"
)
_MEANS = re.compile(
    r"(?:\bthat is|\bthat's|\bi\.e\.|\bwhich (?:is|equals|makes)|\bin other words)[,:]?\s", re.IGNORECASE
)
_DOTTED = re.compile(r"\b(?:antwort|lösung|ergebnis|respuesta|resposta|risposta|antwoord|jawaban|cevap|đáp án)\b", re.I)
_DOTTED_LANGUAGES = {"de", "es", "pt", "it", "nl", "id", "tr", "vi", "da"}
_BOLD = re.compile(r"\*\*([^*\n]*\d[^*\n]*)\*\*(?!:)|__([^_\n]*\d[^_\n]*)__")
_LETTER = re.compile(r"\(?[A-Z]\)?")
_WORD_LABEL = re.compile(r"(?<!\w)(not\s+)?(yes|no|true|false|valid|invalid)(?!\w)", re.IGNORECASE)
_OPPOSITE = {"valid": "invalid", "invalid": "valid", "true": "false", "false": "true"}
_UNDECIDED = re.compile(r"\(?[A-Z]\)?\s*(?:or|/|oder|ou|o|или|或|または)\s*\(?[A-Z]\)?(?!\w)")
_GLOSS = re.compile(r"\s\([^()]*\)[.!。]?\s*$")
_LABEL_NOUN = re.compile(r"^(?:(?:the )?(?:option|choice|answer|letter)|选项?|選項?)\s*[:：]?\s*\(?", re.IGNORECASE)
_SHORT = 60
_QUOTES = " \t\n\"'`*_$.“”«»‘’。"


def final_number(response: str, lang: str = "en") -> str:
    """The number that a worked solution ends with, as plain decimal text; empty when there is none.

    Args:
        response: The raw response.
        lang: Language of the question, ISO 639-1: whether 1.200 is twelve hundred.
    """
    text = _own(response)
    dots = lang in _DOTTED_LANGUAGES or bool(_DOTTED.search(text))
    for line in _SHARPS.findall(text):
        if not _HEADING.match(line):
            return _first_number(line, dots)
    boxed = last_boxed(text)
    if boxed and (number := _last_number(boxed, dots)):
        return number
    for tail in _marked(text):
        if number := _first_number(tail, dots):
            return number
    last_line = text.rstrip().rpartition("\n")[2]
    bold = [part for pair in _BOLD.findall(last_line) for part in pair if part and not part.rstrip().endswith(":")]
    return (
        _last_number(bold[-1], dots) if bold else _last_number(_GLOSS.sub("", text), dots) or _last_number(text, dots)
    )


def final_math(response: str) -> str:
    """The final answer of a MATH solution: the last boxed expression, else what is marked, else the last formula."""
    text = _own(response)
    if boxed := last_boxed(text):
        return boxed
    for tail in _marked(text):
        line = tail.strip().split("\n")[0] or tail.strip()
        formula = re.match(r"[\s*]*(?:\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\])", tail, re.DOTALL)
        found = (
            next(filter(None, formula.groups())) if formula else re.split(r"\.(?=\s|$)|\s(?:because|since)\s", line)[0]
        )
        if found.strip(_QUOTES + ":"):
            return found.strip(_QUOTES + ":")
    formulas = re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]|\*\*(.+?)\*\*", text, re.DOTALL)
    if formulas:
        return next(filter(None, formulas[-1])).strip(_QUOTES)
    lines = text.strip().split("\n")
    return lines[-1].strip(_QUOTES) if len(lines[-1]) <= _SHORT else ""


def final_label(response: str) -> str:
    """The label an answer ends with: "(B)" for a letter, "Yes", "True", "Valid" and the like, else its own words.

    Empty where it leaves open which of two letters it means.
    """
    text = _own(response)
    boxed = last_boxed(text)
    tails = [boxed] * bool(boxed) + _marked(text)
    for tail in tails:
        if _UNDECIDED.match(tail.lstrip(_QUOTES + ":：")):
            return ""
        if label := _label_at_start(tail):
            return label
    if label := _label_at_start(text):
        return label
    undecided = list(_UNDECIDED.finditer(text))
    if not tails and undecided and not re.search(r"\([A-Z]\)", text[undecided[-1].end() :]):
        return ""
    letters = re.findall(r"\(([A-Z])\)", text)
    words = list(_WORD_LABEL.finditer(text))
    if not tails and letters:
        return f"({letters[-1]})"
    if not tails and words:
        return _word_label(words[-1])
    return _free_words(text)


def same_label(response: str, gold: str, question: str = "") -> bool:
    """Whether the label a response ends with is `gold`, however it is written.

    Args:
        response: The raw response.
        gold: The right label in the benchmark's spelling.
        question: The question; where it lists lettered options, the words of an option stand for its letter.
    """
    if re.fullmatch(r"-?\d+(?:\.\d+)?", gold):
        return same_number(final_number(response), gold)
    if not _LETTER.fullmatch(gold) and not _WORD_LABEL.fullmatch(gold):
        return _spelt(_free_words(_own(response))) == _spelt(gold)
    found = final_label(response)
    options = dict(re.findall(r"^\s*\(([A-Z])\)\s*(.+?)\s*$", question, re.MULTILINE))
    named = {text.casefold().strip(_QUOTES): f"({letter})" for letter, text in options.items()}
    found = named.get(found.casefold(), found)
    return _spelt(found) == _spelt(gold)


def same_number(left: str, right: str) -> bool:
    """Whether two texts are the same number (so 18 and 18.0 are)."""
    try:
        return abs(float(left) - float(right)) <= 1e-9 * max(1.0, abs(float(left)), abs(float(right)))
    except ValueError:
        return False


def _own(response: str) -> str:
    """The response's own words: without thoughts in front, and without the questions a base model invents behind."""
    text = _THOUGHTS.sub("", response.replace("\r\n", "\n"))
    return _NEXT_ITEM.split(text)[0] if _NEXT_ITEM.split(text)[0].strip() else text


def _marked(text: str) -> list[str]:
    """What follows each mark of an answer, the last mark first."""
    tails = [text[mark.end() :] for mark in (*_MARK.finditer(text), *_CHOSEN.finditer(text))]
    return _TAG.findall(text)[::-1] + sorted(filter(str.strip, tails), key=len)


def _first_number(tail: str, dots: bool) -> str:
    """The number a marked answer means: the first, or what its sum or its explanation in other words comes to."""
    plain = plain_digits(tail).lstrip("\n *_$")
    found = NUMBER.search(plain)
    word = WORD.search(plain)
    if found is None or (word is not None and word.end() < found.start() and not _CLAUSE.search(plain, 0, word.end())):
        return read_word(word[1]) if word and not _CLAUSE.search(plain, 0, word.start()) else ""
    end = _CLAUSE.search(plain, found.end())
    clause = plain[found.start() : end.start() if end else len(plain)]
    for divider in ("=", "≈", _MEANS):
        parts = divider.split(clause) if isinstance(divider, re.Pattern) else clause.split(divider)
        last = NUMBER.search(parts[-1]) if len(parts) > 1 else None
        if last:
            return read_number(last, dots)
    return read_number(found, dots)


def _last_number(text: str, dots: bool) -> str:
    found = [match for match in NUMBER.finditer(plain_digits(text))]
    return read_number(found[-1], dots) if found else ""


def _free_words(text: str) -> str:
    return (_marked(text) or [text])[0].strip().split("\n")[0].strip(_QUOTES + ":")


def _label_at_start(text: str) -> str:
    start = re.sub(r"\\(?:text(?:bf|rm)?|mathrm|boxed)\s*\{([^{}]*)\}?", r"\1", text).lstrip(_QUOTES + ":：([{\\—-")
    start = _LABEL_NOUN.sub("", start)
    letter = re.match(r"([A-Za-z])(?![\w'])(?=(.*))", start)
    if letter and (letter[1].isupper() or not letter[2].strip(_QUOTES + ")")):
        rest = letter[2]
        article = letter[1] in "AI" and re.match(r"\s+(?!because|since|as\b|is\b|and\b|or\b)[a-z]", rest)
        if not article:
            return f"({letter[1].upper()})"
    word = _WORD_LABEL.match(start)
    return _word_label(word) if word else ""


def _word_label(match: re.Match[str]) -> str:
    word = match[2].lower()
    return (_OPPOSITE.get(word, word) if match[1] else word).capitalize()


def _spelt(label: str) -> str:
    letter = re.fullmatch(r"\(?([A-Z])\)?", label)
    return letter[1] if letter else " ".join(label.replace(",", " ").split()).casefold()
