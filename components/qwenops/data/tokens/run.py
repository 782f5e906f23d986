"""Run tokenisation: documents to shards, index and gate."""

import json
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import AutoTokenizer

from qwenops.contracts.document import part_paths
from qwenops.contracts.gate import gate
from qwenops.contracts.tokens import CONTROL_TOKENS, END_OF_TEXT, TokenIndex, TokenShards, encode_texts
from qwenops.data.buckets import Sources
from qwenops.data.tokens.config import TokensConfig
from qwenops.data.tokens.encode import encode_part
from qwenops.data.tokens.shards import write_shards
from qwenops.platform.ray.documents import map_parts
from qwenops.platform.stage.handle import Stage

_COLUMNS = ["id", "text", "source", "domain", "lang", "split"]


def run(config: TokensConfig, *, documents: Path, tokenizer: Path, mixture: Path, stage: Stage) -> None:
    """Write `shards/`, `index.json` and `summary.md`.

    Raises:
        ContractError: the mixture was made for other documents, or the gate refused the tokens.
    """
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    parts = part_paths(documents)
    chosen = json.loads((mixture / "mixture.json").read_text(encoding="utf-8"))
    sources = Sources(chosen.get("source_weights", {}), tuple(chosen.get("instruction_sources", ())))
    with stage.progress(len(parts), "parts") as progress:
        function = partial(encode_part, tokenizer=tokenizer, batch_documents=config.batch_documents, sources=sources)
        counts = map_parts(
            stage.context, parts, function, stage.scratch / "encoded", progress=progress, columns=_COLUMNS
        )
    encoded = part_paths(stage.scratch / "encoded", "encoded")
    end = encoder.convert_tokens_to_ids(END_OF_TEXT)
    index = write_shards(encoded, stage.out, chosen["weights"], len(encoder), end, stage.seed)
    read, kept = (sum(count[name] for count in counts) for name in ("read", "kept"))
    stage.count(read=read, kept=kept, dropped={"source_weight": read - kept} if kept < read else {})
    _report(stage, index)
    sample = _sample(config, TokenShards(stage.out), encoder)
    for sentence in gate("tokens.json", _summary(index), sample, stage.out).failures:
        stage.warn(sentence)


def _report(stage: Stage, index: TokenIndex) -> None:
    stage.records = sum(facts.tokens for facts in index.shards.values())
    for split in ("train", "heldout"):
        stage.metric(f"tokens.{split}", sum(f.tokens for n, f in index.shards.items() if n.startswith(f"{split}-")))
    for name, facts in index.shards.items():
        stage.metric(f"tokens.{name}", facts.tokens)
    table = _summary(index)
    lines = [
        "# Tokens",
        "",
        f"{stage.records} tokens, {stage.counts['kept']} documents, ids of {index.dtype}.",
        "",
        "| shard | tokens | documents | bytes per token | weight |",
        "|---|---|---|---|---|",
        *(
            f"| {r.shard} | {r.tokens} | {r.documents} | {r.bytes_per_token:.2f} | {r.weight:.3f} |"
            for r in table.itertuples()
        ),
    ]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _summary(index: TokenIndex) -> pd.DataFrame:
    rows = []
    for name, facts in index.shards.items():
        split, bucket = name.split("-", 1)
        rows.append(
            {
                "shard": name,
                "split": split,
                "tokens": facts.tokens,
                "documents": facts.documents,
                "bytes_per_token": facts.bytes_of_text / facts.tokens,
                "weight": index.weights.get(bucket, 0.0),
            }
        )
    return pd.DataFrame(rows)


def _sample(config: TokensConfig, shards: TokenShards, encoder: Any) -> pd.DataFrame:
    """Facts of the first documents of every shard (they lie shuffled), read back and decoded, for the gate."""
    controls = set(encoder.convert_tokens_to_ids(list(CONTROL_TOKENS)))
    each = -(-config.checked_documents // len(shards.index.shards))
    return pd.DataFrame(
        _facts(document.tolist(), encoder, controls)
        for name in shards.index.shards
        for document in islice(shards.documents(*name.split("-", 1)), each)
    )


def _facts(ids: list[int], encoder: Any, controls: set[int]) -> dict[str, Any]:
    inner = ids[:-1]
    return {
        "tokens": len(ids),
        "largest_id_share": max(ids) / len(encoder),
        "ends_with_end_of_text": "yes" if ids[-1] == encoder.convert_tokens_to_ids(END_OF_TEXT) else "no",
        "inner_control_tokens": len(controls.intersection(inner)),
        "round_trip": "same" if encode_texts(encoder, [encoder.decode(inner)]) == [inner] else "different",
    }
