"""The edges of the DAG: which node reads which, in an order that can be run.

A table and not calls, because four things read it: the KFP pipelines (`full.py` turns each row into a task),
the plan of what a rerun can reuse, `--until`, and the report's picture.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """One task: its name, its stage below `qwenops`, and which node each of its inputs comes from."""

    name: str
    stage: str
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def area(self) -> str:
        """The stage's area, for example "data"; placements give resources by area."""
        return self.stage.split(".")[0]


_STAGES: tuple[Node, ...] = (
    Node("collect", "data.collect", {}),
    Node("ingest", "data.ingest", {"pages": "collect"}),
    Node("quality", "data.quality", {"documents": "ingest"}),
    Node("dedup", "data.dedup", {"documents": "quality"}),
    Node("decontaminate", "data.decontaminate", {"documents": "dedup"}),
    Node("tokenizer", "data.tokenizer", {"documents": "decontaminate"}),
    Node("mixture", "data.mixture", {"documents": "decontaminate", "tokenizer": "tokenizer"}),
    Node("tokens", "data.tokens", {"documents": "decontaminate", "tokenizer": "tokenizer", "mixture": "mixture"}),
    Node("pretrain", "pretraining.pretrain", {"tokens": "tokens", "tokenizer": "tokenizer"}),
    Node("extend", "pretraining.extend", {"tokens": "tokens", "tokenizer": "tokenizer", "checkpoint": "pretrain"}),
    Node("upcycle", "pretraining.upcycle", {"tokens": "tokens", "tokenizer": "tokenizer", "checkpoint": "extend"}),
    Node("ontology", "instructions.ontology", {"documents": "decontaminate"}),
    Node("select", "instructions.select", {"instructions": "ontology"}),
    Node("evolve", "instructions.evolve", {"instructions": "select"}),
    Node("sft_seed", "alignment.sft", {"checkpoint": "extend", "demonstrations": "evolve", "tokens": "tokens"}),
    Node("rank", "instructions.rank", {"instructions": "evolve", "checkpoint": "sft_seed"}),
    Node(
        "synthesize",
        "instructions.synthesize",
        {"instructions": "evolve", "checkpoint": "sft_seed", "documents": "decontaminate"},
    ),
    Node(
        "sft",
        "alignment.sft",
        {
            "checkpoint": "sft_seed",
            "demonstrations": "evolve",
            "ranked": "rank",
            "synthesized": "synthesize",
            "tokens": "tokens",
        },
    ),
    Node("reward", "alignment.reward", {"checkpoint": "sft", "ranked": "rank", "synthesized": "synthesize"}),
    Node(
        "dpo",
        "alignment.dpo",
        {"checkpoint": "sft", "ranked": "rank", "synthesized": "synthesize", "demonstrations": "evolve"},
    ),
    Node(
        "online",
        "alignment.online",
        {"checkpoint": "dpo", "base": "extend", "sft": "sft", "reward": "reward", "demonstrations": "evolve"},
    ),
    Node("benchmarks", "evaluation.benchmarks", {"base": "extend", "moe": "upcycle", "chat": "online"}),
    Node("long_context", "evaluation.long_context", {"checkpoint": "extend", "tokens": "tokens"}),
    Node("safety", "evaluation.safety", {"before": "sft_seed", "after": "online"}),
    Node("multilingual", "evaluation.multilingual", {"base": "extend", "chat": "online", "tokens": "tokens"}),
    Node(
        "contamination",
        "evaluation.contamination",
        {
            "documents": "decontaminate",
            "demonstrations": "evolve",
            "synthesized": "synthesize",
            "benchmarks": "benchmarks",
        },
    ),
    Node("export", "delivery.export", {"checkpoint": "online", "tokenizer": "tokenizer", "tokens": "tokens"}),
    Node(
        "register",
        "delivery.register",
        {
            "model": "export",
            "dpo": "dpo",
            "online": "online",
            "reward": "reward",
            "upcycle": "upcycle",
            "benchmarks": "benchmarks",
            "long_context": "long_context",
            "safety": "safety",
            "multilingual": "multilingual",
            "contamination": "contamination",
        },
    ),
)

NODES: tuple[Node, ...] = (
    *_STAGES,
    Node("report", "delivery.report", {node.name: node.name for node in _STAGES}),
)


def ancestors(until: str) -> tuple[Node, ...]:
    """The nodes that `until` needs, itself included, in running order.

    Raises:
        KeyError: no node has that name.
    """
    by_name = {node.name: node for node in NODES}
    wanted: set[str] = set()
    waiting = [by_name[until].name]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(by_name[name].inputs.values())
    return tuple(node for node in NODES if node.name in wanted)
