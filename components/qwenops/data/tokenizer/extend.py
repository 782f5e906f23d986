"""Grow an existing byte-level vocabulary: its tokens and their ids stay, merges learnt from new text come after them.

The report's vocabulary was made so, from tiktoken's `cl100k_base`. New merges join tokens of the base, so they are
learnt on text that the base has encoded: every base token becomes one character of a private alphabet, and the
ordinary trainer finds pairs of those. What the base merges, it merges first, because its merges have the lower ranks.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from qwenops.errors import RecipeError

# Characters that stand for base tokens; above the ones of text, so that none is a blank.
_ALPHABET = 0x10000
_TEXTS_AT_ONCE = 200


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary.

    Attributes:
        ids: Token, in the alphabet of byte-level BPE, to its id; the ids are 0 to N - 1.
        merges: Pairs of tokens in order of rank.
    """

    ids: Mapping[str, int]
    merges: list[tuple[str, str]]


def read_vocabulary(place: Path) -> Vocabulary:
    """The vocabulary of a `.tiktoken` file, a `tokenizer.json`, or a folder that holds either.

    Raises:
        RecipeError: there is none, or it is no byte-level BPE whose ids are 0 to N - 1.
    """
    path = place
    if place.is_dir():
        path = next(iter([*sorted(place.glob("*.tiktoken")), *sorted(place.glob("tokenizer.json"))]), place)
    try:
        found = _read_tiktoken(path) if path.suffix == ".tiktoken" else _read_tokenizers(path)
    except (OSError, ValueError, KeyError) as error:
        raise _refused(place, f"{type(error).__name__}: {error}") from None
    letters = set(bytes_to_unicode().values())
    if lacking := letters - set(found.ids):
        raise _refused(place, f"{len(lacking)} bytes have no token")
    if sorted(found.ids.values()) != list(range(len(found.ids))):
        raise _refused(place, "ids with gaps")
    return found


def grow_vocabulary(
    base: Vocabulary, encoder: Tokenizer, texts: Iterable[str], size: int, least_frequency: int
) -> Vocabulary:
    """The base with merges learnt from `texts` behind it, `size` tokens at most.

    Args:
        base: The vocabulary to grow.
        encoder: A tokenizer of the base, with normaliser and pre-tokeniser.
        texts: What to learn from; each passes once.
        size: Tokens in all.
        least_frequency: Times a pair must occur to be merged.
    """
    if size <= len(base.ids):
        return base
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = [chr(_ALPHABET + number) for number in range(len(base.ids))]
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=least_frequency, show_progress=False, initial_alphabet=letters
    )
    learner.train_from_iterator(_as_letters(encoder, texts), trainer)
    tokens = [token for token, _ in sorted(base.ids.items(), key=lambda item: item[1])]
    ids, merges = dict(base.ids), list(base.merges)
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        left, right = ("".join(tokens[ord(letter) - _ALPHABET] for letter in side) for side in pair)
        merges.append((left, right))
        ids.setdefault(left + right, len(ids))
    return Vocabulary(ids, merges)


def _as_letters(encoder: Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Each text with a letter for every base token and a blank between words."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _TEXTS_AT_ONCE:
            yield from _encode(encoder, batch)
            batch = []
    yield from _encode(encoder, batch)


def _encode(encoder: Tokenizer, batch: list[str]) -> Iterator[str]:
    for encoding in encoder.encode_batch(batch, add_special_tokens=False):
        words = groupby(zip(encoding.word_ids, encoding.ids, strict=True), key=lambda pair: pair[0])
        yield " ".join("".join(chr(_ALPHABET + number) for _, number in word) for _, word in words)


def _read_tiktoken(path: Path) -> Vocabulary:
    lines = path.read_text(encoding="ascii").splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    letters = bytes_to_unicode()
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = ("".join(letters[byte] for byte in part) for part in _parts(ranks, token))
            merges.append((left, right))
    return Vocabulary({"".join(letters[byte] for byte in token): rank for token, rank in ranks.items()}, merges)


def _parts(ranks: Mapping[bytes, int], token: bytes) -> list[bytes]:
    """The two tokens that make `token` when everything of lower rank is merged first."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        place = min(range(len(joined)), key=joined.__getitem__)
        if joined[place] >= ranks[token]:
            raise ValueError(f"{token!r} is not made of two tokens")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _read_tokenizers(path: Path) -> Vocabulary:
    plain = json.loads(path.read_text(encoding="utf-8"))
    added = {token["content"] for token in plain["added_tokens"]}
    ids = {token: number for token, number in plain["model"]["vocab"].items() if token not in added}
    pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in plain["model"]["merges"])
    return Vocabulary(ids, [(left, right) for left, right in pairs])


def _refused(place: Path, found: str) -> RecipeError:
    return RecipeError(
        f"no vocabulary to extend at {place}",
        expected="a .tiktoken file, or a folder with tokenizer.json, of a byte-level BPE",
        found=found,
        action="correct tokenizer.base",
    )
