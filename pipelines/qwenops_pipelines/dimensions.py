"""The toy dimensions of a rehearsal: the most it takes of each, and what keeps several of them together.

House choices: about the numbers of the recipe `smoke`, which the stages are known to stand. Heads keep their ratio,
experts their number, rows of the phases their proportions, a step its passes, quotas their shares.
"""

from collections.abc import Iterator
from typing import Any

from qwenops.recipe.schema import NODES, Recipe

MOST_WORKERS = 2
"""Ray Train workers that toy dimensions still divide among themselves."""

# Field, or field with its owner, to the most a rehearsal takes of it. A zero that means none stays.
_MOST: dict[str, int] = {
    "cap_bytes": 1_000_000,
    "part_bytes": 1_000_000,
    "classifier.num_features": 1 << 14,
    "classifier.num_documents": 1500,
    "classifier.num_characters": 500,
    "perplexity.num_words": 50_000,
    "rubric.num_documents": 8,
    "planted_documents": 60,
    "planted_items": 40,
    "sample_bytes": 300_000,
    "measured_bytes": 50_000,
    "checked_documents": 50,
    # mixture
    "proxies": 10,
    "mixture.hidden_size": 32,
    "mixture.num_layers": 1,
    "mixture.num_heads": 2,
    "context_length_tokens": 64,
    "measured_rows": 4,
    "simulated": 2000,
    "averaged": 20,
    "planned_tokens": 200_000,
    # pre-training
    "phases.steps": 6,
    "training.steps": 4,
    "training.batch_tokens": 1024,
    "sft_seed.training.steps": 30,
    "sft_seed.training.batch_tokens": 512,
    "sft.training.steps": 30,
    "sft.training.batch_tokens": 512,
    "evaluation_tokens": 2048,
    "evaluation_needles": 8,
    "heldout_tokens": 512,
    # instructions; what a tag needs to stay is counted in the same rows
    "tasks_per_kind": 60,
    "heldout_per_kind": 10,
    "document_instructions": 20,
    "max_passage_characters": 240,
    "min_frequency": 4,
    "association_support": 8,
    "select.size": 600,
    "demonstrations_per_source": 10,
    "verifiable_demonstrations": 240,
    "heldout_evolved": 5,
    "rank.prompts": 24,
    "strategies.max_new_tokens": 24,
    "rejection_prompts": 30,
    "rejection_sampling.n": 3,
    "programs_per_task": 3,
    "following_instructions": 1,
    "repurposed_documents": 5,
    "constitution_prompts": 30,
    # alignment
    "max_length_tokens": 256,
    "pretraining_pairs": 32,
    "reward.pairs": 64,
    "heldout_pairs": 32,
    "pairs_per_step": 8,
    "episodes": 2,
    "screened_prompts": 16,
    "prompts_per_episode": 8,
    "online.samples": 3,
    "value_warmup_steps": 1,
    "pretraining_rows": 4,
    "measure.prompts": 16,
    "guard.prompts": 8,
    # evaluation
    "max_new_tokens": 12,
    "limit_items": 4,
    "limit_per_cell": 1,
    "max_shots": 1,
    "verifiable_per_kind": 4,
    "needles_per_depth": 1,
    "text_tokens": 512,
    "tokens_per_language": 500,
    "prompts_per_language": 1,
    # delivery
    "compared_tokens": 64,
    "quickstart_new_tokens": 16,
}
# Fields whose null or zero means everything.
_ALL = {"cap_bytes", "limit_items", "limit_per_cell"}
_LONGEST_ROW = 512
_SHORTEST_ROW = 64
_HEAD_SIZE = 16
_VOCABULARY = 512
# Peak rate of fine-tuning: what follows needs answers that end, and a few steps must teach that.
_RATE = 2e-3
# Screening runs and lets every prompt pass: a toy may solve none of them even once.
_ANY_SHARE = (0.0, 1.0)


def shrink(recipe: Recipe, plain: dict[str, Any]) -> None:
    """Give `plain`, the data of `recipe` with what stands in for other things, toy dimensions."""
    for node in NODES:
        plain[node] = _capped(plain[node], (node,))
    _shrink_model(recipe, plain)
    _raise_rates(plain)
    if recipe.online.screened_prompts:
        plain["online"]["solved_share"] = _ANY_SHARE
    _shorten_rows(recipe, plain)
    _fit_steps(recipe, plain)
    for quota, whole in zip(plain["select"]["quotas"], recipe.select.quotas, strict=True):
        quota["rows"] = -(-whole.rows * plain["select"]["size"] // recipe.select.size)


def _capped(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _capped(part, (*path, name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_capped(part, path) for part in value]
    most = next((_MOST[key] for key in (".".join(path[place:]) for place in range(len(path))) if key in _MOST), None)
    if most is None or isinstance(value, str):
        return value
    if not value:
        return most if path[-1] in _ALL else value
    return min(value, most)


def _shrink_model(recipe: Recipe, plain: dict[str, Any]) -> None:
    size = recipe.pretrain.size
    kv_heads = min(size.num_kv_heads, MOST_WORKERS)
    heads = kv_heads * size.num_query_heads // size.num_kv_heads
    hidden = heads * min(size.head_size, _HEAD_SIZE)
    vocabulary = min(recipe.tokenizer.vocabulary, _VOCABULARY)
    plain["tokenizer"]["vocabulary"] = vocabulary
    padding = min(size.vocab_rows - recipe.tokenizer.vocabulary, 64)

    def width(whole: int) -> int:
        return -(-whole * hidden // (8 * size.hidden_size)) * 8

    plain["pretrain"]["size"] |= {
        "hidden_size": hidden,
        "num_layers": min(size.num_layers, 2),
        "num_query_heads": heads,
        "num_kv_heads": kv_heads,
        "intermediate_size": width(size.intermediate_size),
        "vocab_rows": vocabulary + padding,
    }
    experts = recipe.upcycle.experts
    plain["upcycle"]["experts"] |= {
        "expert_width": width(experts.expert_width),
        "shared_width": width(experts.shared_width),
    }


def _raise_rates(plain: dict[str, Any]) -> None:
    """Rates of fine-tuning at which a toy learns to end an answer, the schedule's proportions kept."""
    for node in ("sft_seed", "sft"):
        loop = plain[node]["training"]
        raised = max(_RATE / loop["learning_rate"], 1)
        loop |= {name: loop[name] * raised for name in ("learning_rate", "final_learning_rate")}


def _shorten_rows(recipe: Recipe, plain: dict[str, Any]) -> None:
    """Rows in the proportions they have, the longest of `_LONGEST_ROW` tokens."""
    longest = recipe.extend.phases[-1].length

    def row(whole: int) -> int:
        step = _SHORTEST_ROW
        return whole if longest <= _LONGEST_ROW else max(whole * _LONGEST_ROW // longest // step * step, step)

    for node in ("pretrain", "extend"):
        for phase in plain[node]["phases"]:
            phase["length"] = row(phase["length"])
    plain["upcycle"]["length"] = row(recipe.upcycle.length)
    plain["extend"]["long_tokens"] = row(recipe.extend.long_tokens) if recipe.extend.long_tokens else 0


def _fit_steps(recipe: Recipe, plain: dict[str, Any]) -> None:
    """Steps that hold a row, in the passes they are made of, with a warm-up and a checkpoint on the way."""
    for node, longest in _longest_rows(plain):
        whole, loop = getattr(recipe, node).training, plain[node]["training"]
        if "phases" in plain[node]:
            loop["steps"] = sum(phase["steps"] for phase in plain[node]["phases"])
        loop["batch_tokens"] = min(whole.batch_tokens, max(loop["batch_tokens"], MOST_WORKERS * longest))
        loop["warmup_steps"] = min(whole.warmup_steps, 1)
        loop["checkpoint_every_steps"] = min(whole.checkpoint_every_steps, max(loop["steps"] // 2, 1))
        if whole.micro_batch_tokens:
            passed = loop["batch_tokens"] * whole.micro_batch_tokens // whole.batch_tokens
            loop["micro_batch_tokens"] = max(passed, longest, loop["batch_tokens"] // 4)


def _longest_rows(plain: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Node of every training loop, and its longest row."""
    for node in NODES:
        fields = plain[node]
        if "training" in fields:
            rows = [fields[name] for name in ("context_length_tokens", "length", "max_length_tokens") if name in fields]
            yield node, max([*rows, *(phase["length"] for phase in fields.get("phases", ()))])
