"""Run tokenizer training: a sample balanced over languages in, a transformers tokenizer folder out."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qwenops.contracts.document import iter_documents
from qwenops.contracts.tokens import CONTROL_TOKENS, encode_texts
from qwenops.data.tokenizer.bpe import balance_bytes, extend, save, save_adapted, take_shares, train
from qwenops.data.tokenizer.config import TokenizerConfig
from qwenops.errors import RecipeError, StageError
from qwenops.model.warm_start import load_initial_tokenizer
from qwenops.platform.stage.handle import Stage
from qwenops.platform.storage.weights import resolve_weights


def run(config: TokenizerConfig, *, documents: Path, stage: Stage) -> None:
    """Write the tokenizer folder, `compression.json` and `summary.md`.

    Raises:
        StageError: the tokenizer does not give a held-out text back.
        RecipeError: a tokenizer that is taken over has another size than the recipe says, or there is no base.
        ContractError: it lacks a control token.
    """
    shares = _take_over(config, stage) if config.init_from else _train(config, documents, stage)
    tokenizer = AutoTokenizer.from_pretrained(stage.out)
    if len(tokenizer) < config.vocabulary:
        stage.warn(f"the text has frequent pairs for {len(tokenizer)} tokens only, not {config.vocabulary}")
    stage.metric("vocabulary", len(tokenizer))
    stage.records = len(tokenizer)
    compression = _compression(tokenizer, documents, config, stage)
    for language, value in compression.items():
        stage.metric(f"bytes_per_token.{language}", value)
    _write(stage, tokenizer, compression, shares)


def _train(config: TokenizerConfig, documents: Path, stage: Stage) -> dict[str, int]:
    """Train or extend, and save; returns the bytes of each language that were trained on."""
    shares = balance_bytes(_sizes(documents, "train"), config.sample_bytes)
    with stage.progress(sum(shares.values()), "bytes") as progress:

        def texts() -> Iterator[str]:
            for _, text in take_shares(_rows(documents, "train"), shares):
                progress.advance(len(text.encode()))
                yield text

        if config.base:
            made = extend(Path(config.base), texts(), config.vocabulary, config.least_frequency)
        else:
            made = train(texts(), config.vocabulary, config.least_frequency)
        save(made, stage.out)
    return shares


def _take_over(config: TokenizerConfig, stage: Stage) -> dict[str, int]:
    """Save the tokenizer of the initial weights; nothing is trained, so no language has a share."""
    source = resolve_weights(config.init_from, stage.context.cache_folder("weights"))
    found = load_initial_tokenizer(source)
    if len(found) != config.vocabulary:
        raise RecipeError(
            "the tokenizer taken over has another size",
            expected=f"tokenizer.vocabulary {config.vocabulary}",
            found=len(found),
            action=f"set tokenizer.vocabulary to {len(found)}",
        )
    save_adapted(found, stage.out)
    return {}


def _rows(documents: Path, split: str) -> Iterator[tuple[str, str]]:
    """Language and text of a split, a few documents in memory at a time."""
    for row in iter_documents(documents, ["text", "lang", "split"]):
        if row["split"] == split:
            yield row["lang"], row["text"]


def _sizes(documents: Path, split: str) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for language, text in _rows(documents, split):
        sizes[language] += len(text.encode())
    return dict(sizes)


def _compression(
    tokenizer: PreTrainedTokenizerFast, documents: Path, config: TokenizerConfig, stage: Stage
) -> dict[str, float]:
    """Bytes per token by language on held-out text; each text must also decode to itself."""
    samples: dict[str, list[str]] = {}
    counts: dict[str, list[int]] = {}
    normalises = tokenizer.backend_tokenizer.normalizer is not None
    languages = {language for language, _ in _rows(documents, "heldout")}
    for language, text in take_shares(_rows(documents, "heldout"), dict.fromkeys(languages, config.measured_bytes)):
        samples.setdefault(language, []).append(text)
    for language, texts in sorted(samples.items()):
        encoded = encode_texts(tokenizer, texts)
        for text, ids in zip(texts, encoded, strict=True):
            if tokenizer.decode(ids) != (unicodedata.normalize("NFC", text) if normalises else text):
                raise StageError(
                    "the tokenizer loses text",
                    expected=repr(text[:80]),
                    found=repr(tokenizer.decode(ids)[:80]),
                    action="choose another model to take it over from"
                    if config.init_from
                    else "report this; a byte-level tokenizer gives back every text",
                )
        counts[language] = [sum(len(text.encode()) for text in texts), sum(map(len, encoded))]
    if not counts:
        stage.warn("no held-out document, so compression was not measured")
    return {language: size / tokens for language, (size, tokens) in counts.items()}


def _write(
    stage: Stage, tokenizer: PreTrainedTokenizerFast, compression: dict[str, float], shares: dict[str, int]
) -> None:
    (stage.out / "compression.json").write_text(json.dumps(compression, indent=1), encoding="utf-8")
    controls = ", ".join(f"`{token}` {tokenizer.convert_tokens_to_ids(token)}" for token in CONTROL_TOKENS)
    languages = sorted(shares or compression)
    lines = [
        "# Tokenizer",
        "",
        f"{len(tokenizer)} tokens; {controls}.",
        "",
        "| language | bytes trained on | bytes per token, held out |",
        "|---|---|---|",
        *(f"| {name} | {shares.get(name, 0)} | {compression.get(name, float('nan')):.2f} |" for name in languages),
    ]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
