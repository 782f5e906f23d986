"""Taggers: from an instruction to raw, open-ended tags (InsTag, step 1).

The method asks a strong language model for intentions as JSON. `LlmTagger` does that through any engine.
`LexicalTagger` is the labelled stand-in where no such model exists: words, language and shape of the instruction. It
sees topics and never intentions, so its ontology shows that the machinery works, not what instructions mean.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from qwenops.contracts.conversation import Conversation, ask
from qwenops.generation.engine import Engine, Sampling, count_unfinished

_PROMPT = """You are a tagging system that provides useful tags for instruction intentions to distinguish instructions \
for a helpful AI assistant. Below is an instruction:
[begin]
{}
[end]
Please provide coarse-grained tags, such as "Spelling and Grammar Check" and "Cosplay", to identify main intentions of \
the above instruction. Your answer should be a list including titles of tags and a brief explanation of each tag. Your \
response has to strictly follow this JSON format: [{{"tag": str, "explanation": str}}]. Please respond in English."""

_WORD = re.compile(r"[^\W\d_]+")
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_STOP_TEXT = (
    "the and what with for this that from how are you your tell want help explain please into then give "
    "como cómo quiero diga dime comment veux wie kann ich will sag mir man und der die das einen eine"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_LONG_WORDS = 24
_LANGUAGE_NAMES = {
    "en": "English",
    "zh": "Chinese",
    "es": "Spanish",
    "fr": "French",
    "de": "German",
    "pt": "Portuguese",
    "ru": "Russian",
    "ja": "Japanese",
    "it": "Italian",
    "ar": "Arabic",
    "ko": "Korean",
    "nl": "Dutch",
}


class Tagger(Protocol):
    """Gives each instruction a list of raw tags."""

    @property
    def name(self) -> str:
        """What tags, for the ontology file."""
        ...

    def tag(self, rows: Sequence[Conversation]) -> list[tuple[str, ...]]:
        """Raw tags of each row; empty where the tagger had nothing to say."""
        ...


class LexicalTagger:
    """Words, language and shape of an instruction as tags; repeatable and free."""

    name = "lexical stand-in: words, language and shape, not intentions"

    def __init__(self, max_tags: int) -> None:
        self._max_tags = max_tags

    def tag(self, rows: Sequence[Conversation]) -> list[tuple[str, ...]]:
        """See `Tagger.tag`."""
        return [self._tag(row) for row in rows]

    def _tag(self, row: Conversation) -> tuple[str, ...]:
        text = row.instruction
        tags = [_LANGUAGE_NAMES.get(row.lang, row.lang)]
        tags += ["digit string"] if re.search(r"\d{3,}", text) else []
        tags += ["arithmetic"] if re.search(r"\d\s*[+*/-]\s*\d", text) else []
        tags += ["question"] if text.rstrip().endswith(("?", "？")) else []
        tags += ["long instruction"] if len(text.split()) > _LONG_WORDS else []
        tags += ["several steps"] if ", then " in text else []
        words = [word.lower() for word in _WORD.findall(text) if not _HAN.search(word)]
        tags += [word for word in words if len(word) > 2 and word not in _STOP_WORDS]
        for run in (word for word in _WORD.findall(text) if _HAN.search(word)):
            tags += [run[i : i + 2] for i in range(len(run) - 1)]
        return tuple(dict.fromkeys(tags))[: self._max_tags]


class LlmTagger:
    """Asks a language model for intentions and keeps what parses.

    Attributes:
        answers: How many were asked for ("all"), were "cut", were "lost" by an endpoint, or gave no tags.
    """

    def __init__(self, engine: Engine, max_tags: int) -> None:
        self._engine, self._max_tags = engine, max_tags
        self.answers = Counter[str]()

    @property
    def name(self) -> str:
        """The model that tags."""
        return f"llm: {self._engine.name}"

    def tag(self, rows: Sequence[Conversation]) -> list[tuple[str, ...]]:
        """See `Tagger.tag`; an answer that is not the JSON asked for gives no tags."""
        prompts = [ask(_PROMPT.format(row.instruction)) for row in rows]
        samples = [group[0] for group in self._engine.generate(prompts, Sampling(max_new_tokens=512))]
        tags = [parse_tags(sample.text)[: self._max_tags] for sample in samples]
        unread = sum(sample.finish != "lost" and not found for sample, found in zip(samples, tags, strict=True))
        self.answers += count_unfinished(samples) + Counter(all=len(samples), not_understood=unread)
        return tags


def parse_tags(text: str) -> tuple[str, ...]:
    """The tags of a model's answer: the JSON list in it, or nothing."""
    begin, end = text.find("["), text.rfind("]")
    if begin < 0 or end < begin:
        return ()
    try:
        items = json.loads(text[begin : end + 1])
    except ValueError:
        return ()
    tags = (item.get("tag") for item in items if isinstance(item, dict))
    return tuple(dict.fromkeys(tag.strip() for tag in tags if isinstance(tag, str) and tag.strip()))
