"""The model card: front matter that the model hub understands, then what a reader needs before the first use."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwenops.contracts.checkpoint import CheckpointFacts
from qwenops.contracts.metrics import find_metric
from qwenops.delivery.export.config import ExportConfig
from qwenops.delivery.export.quickstart import script

_RESULTS = ("pass_rate", "pass_rate.sampled", "reward.final", "kl.final")


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside the config.

    Attributes:
        architecture: For example `Qwen2ForCausalLM`.
        parameters: Number of weights, tied ones counted once.
        vocabulary: Rows of the embedding.
        checkpoint: How the weights were trained.
        local_size: DCA's local window for this trained length.
        languages: ISO codes of the held-out text.
        domains: Token share by domain.
        data_digest: Digest of the token shards.
        metrics: The last alignment stage's figures.
    """

    architecture: str
    parameters: int
    vocabulary: int
    checkpoint: CheckpointFacts
    local_size: int
    languages: Sequence[str]
    domains: Mapping[str, float]
    data_digest: str
    metrics: Mapping[str, float]


def model_card(config: ExportConfig, facts: CardFacts) -> str:
    """The card's text, Markdown with YAML front matter (JSON values are YAML too)."""
    return "\n".join([_front_matter(config, facts), _body(config, facts)])


def _front_matter(config: ExportConfig, facts: CardFacts) -> str:
    dataset = f"qwenops-tokens-{facts.data_digest[:12]}"
    fields = {
        "license": config.license,
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "language": sorted(code for code in facts.languages if len(code) == 2),
        "tags": ["chat", "qwen2", "qwenops"],
        "datasets": [dataset],
        "model-index": [{"name": config.model_name, "results": _results(facts.metrics)}],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _results(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": "held-out verifiable prompts", "type": "qwenops/verifiable"},
            "metrics": [{"name": name, "type": name, "value": round(metrics[name], 4)}],
        }
        for name in _RESULTS
        if name in metrics
    ]


def _body(config: ExportConfig, facts: CardFacts) -> str:
    length = facts.checkpoint.context_length_tokens
    dca = {"chunk_size": length, "local_size": facts.local_size, "original_max_position_embeddings": length}
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": length}
    return f"""# {config.model_name}

A chat model trained by qwenops, a pipeline that follows the Qwen2 Technical Report (arXiv:2407.10671).
It is a stock `{facts.architecture}`: transformers loads it without further code.

| | |
|---|---|
| parameters | {facts.parameters:,} |
| vocabulary | {facts.vocabulary:,} |
| tokens seen | {facts.checkpoint.tokens_seen:,} |
| trained context | {length:,} tokens (RoPE base {facts.checkpoint.rope_theta:,.0f}) |
| supported maximum context | {length:,} tokens as it is; {4 * length:,} with YaRN or Dual Chunk Attention (below) |
| weights | {config.dtype}, safetensors |
| format | ChatML: `<\\|im_start\\|>role ... <\\|im_end\\|>`, default system message "You are a helpful assistant." |

## Quickstart
Needs `transformers>=4.37` and `accelerate`.

```python
{script(config.model_name, config.quickstart_prompt, config.quickstart_new_tokens)}print(response)
```

## Longer inputs
Both settings belong into `config.json` and exclude each other. Leave them out for inputs within the trained context:
static YaRN changes short inputs too.

- YaRN (transformers, vLLM): `"rope_scaling": {json.dumps(yarn)}`
- Dual Chunk Attention with YaRN's temperature (servers that implement it read this key; `qwenops chat MODEL
  --long-context dca` does it here): `"dual_chunk_attention_config": {json.dumps(dca)}`

## Training data
{_domains(facts.domains)}
Digest of the token shards: `{facts.data_digest}`. Languages: {", ".join(facts.languages) or "not recorded"}.

## Figures
{_figures(facts.metrics)}
Measured by the pipeline on held-out items. Benchmarks, long context, safety and contamination stand in the run's
`report.html` and in the model registry's entry.

## Release gate
{_gate(config)}
## Limits
The model answers as well as its data and size allow; check what it says. Harmful-response shares by category are in
the run's report; a share above zero means that such answers occur.
"""


def _gate(config: ExportConfig) -> str:
    """What the verdict does not cover; the verdict itself comes after the export and stands elsewhere."""
    head = "The gate's verdict, a sentence per rule, stands in the run's `report.html` and at the registered version."
    if not config.not_gated:
        return f"{head} Every figure of the strict policy is gated.\n"
    return "\n".join([f"{head} Not gated:", "", *(f"- `{e.figure}`: {e.why}" for e in config.not_gated), ""])


def _domains(domains: Mapping[str, float]) -> str:
    rows = [f"| {name} | {share:.1%} |" for name, share in sorted(domains.items())]
    return "\n".join(["| domain | share of tokens |", "|---|---|", *rows, ""])


def _figures(metrics: Mapping[str, float]) -> str:
    rows = []
    for name in _RESULTS:
        metric = find_metric(name)
        if name in metrics and metric is not None:
            rows.append(f"| {name} | {metrics[name]:.4f} | {metric.unit} | {metric.meaning} |")
    return "\n".join(["| figure | value | unit | meaning |", "|---|---|---|---|", *rows, ""])
