"""IFEval's rules: does a raw response obey every instruction of its prompt (strict, prompt level)?

All 25 published instruction kinds. Strict means that nothing is stripped from the response first; a prompt counts
only when all its instructions hold. Language is identified by py3langid, sentences and words by regular expressions
where the original uses nltk: a house choice that avoids a download; counts may differ by one on odd punctuation.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import py3langid

from qwenops.errors import ContractError

Check = tuple[str, Mapping[str, Any]]
Rule = Callable[[str, Mapping[str, Any]], bool]

_ENDINGS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def follows_all(checks: Sequence[Check], prompt: str, response: str) -> bool:
    """Whether `response` is not empty and obeys every one of `checks`."""
    return bool(response.strip()) and all(follows(name, kwargs, prompt, response) for name, kwargs in checks)


def follows(name: str, kwargs: Mapping[str, Any], prompt: str, response: str) -> bool:
    """Whether `response` obeys the instruction `name`.

    Args:
        name: IFEval's id, for example "punctuation:no_comma".
        kwargs: Its parameters under IFEval's names.
        prompt: The prompt that gave the instruction.
        response: The raw response.

    Raises:
        ContractError: no such instruction, or a parameter is missing.
    """
    if name not in RULES:
        raise ContractError(f"unknown IFEval instruction {name}", expected=", ".join(sorted(RULES)), found=name)
    try:
        return RULES[name](response, {"prompt": prompt} | {k: v for k, v in kwargs.items() if v is not None})
    except KeyError as error:
        raise ContractError(
            f"IFEval instruction {name} lacks a parameter",
            expected=str(error),
            found=dict(kwargs),
            action="use the official input_data.jsonl",
        ) from None


def _compare(count: int, bound: int, relation: str) -> bool:
    return count < bound if relation == "less than" else count >= bound


def _count(response: str, pattern: str) -> int:
    return len(re.findall(pattern, response, re.IGNORECASE))


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if part.strip()]


def _paragraphs(response: str, rule: str) -> list[str] | None:
    """Paragraphs split by `rule`; None when an inner one is empty, which breaks the format."""
    parts = re.split(rule, response)
    inner = [part for place, part in enumerate(parts) if part.strip() or 0 < place < len(parts) - 1]
    return inner if all(part.strip() for part in inner) else None


def _paragraph_count(response: str, kwargs: Mapping[str, Any]) -> bool:
    parts = _paragraphs(response, r"\s?\*\*\*\s?")
    return parts is not None and len(parts) == kwargs["num_paragraphs"]


def _nth_paragraph(response: str, kwargs: Mapping[str, Any]) -> bool:
    parts = [part for part in re.split(r"\n\n", response) if part.strip()]
    if len(parts) != kwargs["num_paragraphs"] or kwargs["nth_paragraph"] > len(parts):
        return False
    words = parts[kwargs["nth_paragraph"] - 1].split()
    return re.sub(r"^[\"']+|[.,?!\"'].*$", "", words[0]).lower() == kwargs["first_word"].lower()


def _highlights(response: str, kwargs: Mapping[str, Any]) -> bool:
    found = re.findall(r"\*[^\n*]*\*", response) + re.findall(r"\*\*[^\n*]*\*\*", response)
    return sum(bool(part.strip("*").strip()) for part in found) >= kwargs["num_highlights"]


def _sections(response: str, kwargs: Mapping[str, Any]) -> bool:
    parts = re.split(rf"\s?{re.escape(kwargs['section_spliter'].strip())}\s?\d+\s?", response)
    return len(parts) - 1 >= kwargs["num_sections"]


def _json(response: str, _: Mapping[str, Any]) -> bool:
    text = re.sub(r"^```(?:json|Json|JSON)?|```$", "", response.strip()).strip()
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _postscript(response: str, kwargs: Mapping[str, Any]) -> bool:
    marker = kwargs["postscript_marker"]
    letters = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    return _has_line(response, letters.get(marker, rf"\s*{re.escape(marker.lower())}.*$"))


def _has_line(response: str, pattern: str) -> bool:
    return re.search(pattern, response.lower(), re.MULTILINE) is not None


def _two_responses(response: str, _: Mapping[str, Any]) -> bool:
    parts = _paragraphs(response, re.escape("******"))
    return parts is not None and len(parts) == 2 and parts[0].strip() != parts[1].strip()


def _capital_words(response: str, kwargs: Mapping[str, Any]) -> bool:
    count = sum(word.isupper() for word in re.findall(r"\w[\w'-]*", response))
    return _compare(count, kwargs["capital_frequency"], kwargs["capital_relation"])


def _language(response: str, code: str) -> bool:
    return py3langid.classify(response)[0] == code.split("-")[0].lower()


RULES: dict[str, Rule] = {
    "keywords:existence": lambda r, k: all(_count(r, re.escape(word)) for word in k["keywords"]),
    "keywords:forbidden_words": lambda r, k: not any(_count(r, rf"\b{re.escape(w)}\b") for w in k["forbidden_words"]),
    "keywords:frequency": lambda r, k: _compare(_count(r, re.escape(k["keyword"])), k["frequency"], k["relation"]),
    "keywords:letter_frequency": lambda r, k: _compare(
        Counter(r.lower())[k["letter"].lower()], k["let_frequency"], k["let_relation"]
    ),
    "language:response_language": lambda r, k: _language(r, k["language"]),
    "length_constraints:number_sentences": lambda r, k: _compare(len(_sentences(r)), k["num_sentences"], k["relation"]),
    "length_constraints:number_words": lambda r, k: _compare(len(re.findall(r"\w+", r)), k["num_words"], k["relation"]),
    "length_constraints:number_paragraphs": _paragraph_count,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda r, k: _count(r, r"\[.*?\]") >= k["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda r, k: (
        len(re.findall(r"^\s*\*[^*].*$", r, re.MULTILINE)) + len(re.findall(r"^\s*-.*$", r, re.MULTILINE))
        == k["num_bullets"]
    ),
    "detectable_format:constrained_response": lambda r, _: any(ending in r.strip() for ending in _ENDINGS),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda r, _: any(t.strip("<> ") for t in re.findall(r"<<[^\n]+>>", r)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda r, k: r.strip().lower().startswith(k["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda r, k: r.strip().strip('"').lower().endswith(k["end_phrase"].strip().lower()),
    "startend:quotation": lambda r, _: len(r.strip()) > 1 and r.strip().startswith('"') and r.strip().endswith('"'),
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda r, _: r.isupper() and _language(r.lower(), "en"),
    "change_case:english_lowercase": lambda r, _: r.islower() and _language(r, "en"),
    "punctuation:no_comma": lambda r, _: "," not in r,
}
