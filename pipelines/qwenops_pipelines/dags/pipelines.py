"""The five pipelines: which nodes each holds, and which it takes up from an earlier run."""

from dataclasses import dataclass

from qwenops.errors import RecipeError
from qwenops_pipelines.dags.nodes import NODES, Node


@dataclass(frozen=True)
class Pipeline:
    """A pipeline: its name, one sentence for the UI, and its nodes in running order."""

    name: str
    description: str
    nodes: tuple[Node, ...]

    @property
    def earlier(self) -> tuple[str, ...]:
        """Nodes outside this pipeline whose artifacts it reads, in the order of the whole DAG."""
        own = {node.name for node in self.nodes}
        read = {source for node in self.nodes for source in node.inputs.values()}
        return tuple(node.name for node in NODES if node.name in read - own)

    @property
    def is_judged(self) -> bool:
        """Whether the evaluation gate is part of it."""
        return any(node.name == "register" for node in self.nodes)


def _of(name: str, description: str, *nodes: str) -> Pipeline:
    return Pipeline(name, description, tuple(node for node in NODES if node.name in nodes))


PIPELINES: dict[str, Pipeline] = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline("full", "Raw pages to a registered, evaluated chat model, following the Qwen2 report", NODES),
        _of(
            "data",
            "Raw pages to token shards",
            *("collect", "ingest", "quality", "dedup", "decontaminate", "tokenizer", "mixture", "tokens"),
        ),
        _of("pretraining", "Token shards to a long-context base and its experts", "pretrain", "extend", "upcycle"),
        _of(
            "post_training",
            "A base model to an aligned chat model",
            *("ontology", "select", "evolve", "sft_seed", "rank", "synthesize", "sft", "reward", "dpo", "online"),
        ),
        _of(
            "evaluation",
            "Every evaluation of the models of an earlier run, export and registration by the gate",
            *("benchmarks", "long_context", "safety", "multilingual", "contamination", "export", "register"),
        ),
    )
}


def find_pipeline(name: str) -> Pipeline:
    """The pipeline called `name`.

    Raises:
        RecipeError: there is none.
    """
    if name not in PIPELINES:
        raise RecipeError(
            "unknown pipeline", expected=f"one of {', '.join(PIPELINES)}", found=name, action="check --pipeline"
        )
    return PIPELINES[name]
