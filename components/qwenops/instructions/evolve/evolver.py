"""Make an instruction harder: by rules with a recomputed answer, or by asking a language model.

A verifiable task gains a step ("Reverse, then drop the first: 381752") and its verifier computes the new answer. An
instruction with a known answer gains a constraint that the answer already meets. Anything else needs `llm_children`,
after Tree-Instruct: the model is asked to add nodes to the instruction's semantic tree and to word the result.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rapidfuzz.distance import LCSseq

from qwenops.contracts.conversation import Conversation, answer, ask, conversation_id
from qwenops.generation.engine import Engine, Sampling, count_unfinished
from qwenops.tasks.constraints import constraints_met_by
from qwenops.tasks.verifiable import compose

_TREE_PROMPT = """You are an instruction rewriter. You need to rewrite a given user instruction following the process:
1. Parse the instruction into a tree of semantic components.
2. Add {nodes} new meaningful nodes (constraints or requirements) to the tree.
3. Write the instruction that the new tree says. It must stay answerable by itself.
Reply with the new instruction only.

Instruction: {instruction}"""
_LEAKS = ("instruction rewriter", "new instruction", "given instruction", "semantic tree", "rewritten", "new nodes")


def evolve_task(row: Conversation, steps: Sequence[str], rng: random.Random) -> Conversation | None:
    """A verifiable task with one more step and its own verifier, or None when none of the steps can follow."""
    for step in rng.sample(list(steps), len(steps)):
        child = compose(row.verifier or {}, step)
        if child is not None:
            added = {"added": [step], "depth": _depth(row) + 1}
            return replace(
                child, tags=(*row.tags, f"then {step}"), strategy="evolved", parent_id=row.id, provenance=added
            )
    return None


def evolve_answered(row: Conversation, rng: random.Random) -> Conversation | None:
    """The instruction with one or two constraints its known answer meets, or None when the answer meets none."""
    met = constraints_met_by(row.response)
    if not met:
        return None
    added = rng.sample(met, min(len(met), rng.randint(1, 2)))
    text = " ".join([*(constraint.text for constraint in added), row.instruction])
    return replace(
        row,
        id=conversation_id("evolved", row.id, text),
        messages=answer(ask(text), row.response),
        strategy="evolved",
        tags=(*row.tags, *(constraint.name for constraint in added)),
        parent_id=row.id,
        provenance={**(row.provenance or {}), "added": [c.text for c in added], "depth": _depth(row) + 1},
    )


def llm_children(
    rows: Sequence[Conversation], engine: Engine, nodes: Sequence[int], temperature: float, seed: int
) -> tuple[list[Conversation], Counter[str]]:
    """Children of `rows` worded by a language model; unanswered, since nobody has answered them yet.

    Half an instruction is none: those that were cut or lost are left out and counted.
    """
    rng = random.Random(seed)
    drawn = [rng.choice(list(nodes)) for _ in rows]
    prompts = [
        ask(_TREE_PROMPT.format(nodes=n, instruction=row.instruction)) for row, n in zip(rows, drawn, strict=True)
    ]
    sampling = Sampling(temperature=temperature, max_new_tokens=512, seed=seed)
    samples = [group[0] for group in engine.generate(prompts, sampling)]
    children = [
        replace(
            row,
            id=conversation_id("evolved", row.id, sample.text.strip()),
            messages=ask(sample.text.strip() or "."),
            strategy="evolved",
            verifier=None,
            parent_id=row.id,
            provenance={"added": n, "depth": _depth(row) + 1, "model": engine.name, "sampling": sampling.label},
        )
        for row, n, sample in zip(rows, drawn, samples, strict=True)
        if sample.is_whole
    ]
    return children, count_unfinished(samples)


def find_flaw(child: Conversation, parent: Conversation, heldout: frozenset[str], max_rouge_l: float) -> str | None:
    """Why a child must be dropped, in a word; None when it is good."""
    text, old = child.instruction, parent.instruction
    if rouge_l(text, old) >= max_rouge_l:
        return "near_parent"
    # A task with a verifier has one step more by construction, however short its wording.
    if child.verifier is None and len(text) <= len(old):
        return "not_longer"
    if any(leak in text.lower() for leak in _LEAKS):
        return "prompt_leak"
    # Evolution may rebuild a held-out prompt; what was decontaminated stays so.
    if child.split != parent.split or (child.split == "train" and text in heldout):
        return "heldout"
    return None


def rouge_l(left: str, right: str) -> float:
    """ROUGE-L F1 over words, in [0, 1]."""
    a, b = left.lower().split(), right.lower().split()
    return 2 * LCSseq.similarity(a, b) / max(len(a) + len(b), 1)


def _depth(row: Conversation) -> int:
    return int((row.provenance or {}).get("depth", 0))
