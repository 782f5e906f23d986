"""Every metric a stage may record: name pattern, unit, direction, meaning. Nothing else spells one.

A name in angle brackets stands for one part that varies (`bits_per_byte.<language>`). The names are the ones
the run record and MLflow show, so that two runs align.
"""

import re
from dataclasses import dataclass
from typing import Literal

from qwenops.errors import StageError

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Metric:
    """One metric: its name pattern, unit, the direction that is better, and what it means."""

    pattern: str
    unit: str
    better: Direction
    meaning: str


METRICS: tuple[Metric, ...] = (
    # data
    Metric("documents.<kind>", "documents", "none", "documents by domain, language or source"),
    Metric("bytes.<kind>", "bytes", "none", "UTF-8 text bytes by domain, language or source"),
    Metric("sources.missing", "sources", "lower", "configured sources that could not be reached"),
    Metric("language.accuracy", "share", "higher", "language id against the language the source declares"),
    Metric("classifier.auc", "share", "higher", "quality classifier on held-out labelled documents"),
    Metric("offensive.auc", "share", "higher", "offensive-text classifier on held-out labelled lines"),
    Metric("pii.<kind>", "matches", "none", "personal data masked by kind"),
    Metric("planted.recall", "share", "higher", "planted near-duplicates that were found"),
    Metric("planted.precision", "share", "higher", "found pairs that are near-duplicates by exact Jaccard"),
    Metric("planted.removed", "share", "higher", "planted evaluation items that were removed"),
    Metric("contaminated.<task>", "records", "none", "documents or rows removed because of one evaluation set"),
    Metric("vocabulary", "tokens", "none", "size of the tokenizer's vocabulary"),
    Metric("bytes_per_token.<language>", "bytes/token", "higher", "compression by language"),
    Metric("mixture.<domain>", "share", "none", "token share the mixture search chose for a domain"),
    Metric("mixture.spearman", "correlation", "higher", "rank correlation of the regression on held-out proxies"),
    Metric("mixture.proxy_loss.<which>", "nats", "lower", "loss of a proxy trained on the prior or chosen mixture"),
    Metric("tokens.<split>", "tokens", "none", "tokens written by split or domain"),
    # training
    Metric("loss.beyond.<which>", "nats/token", "lower", "cross entropy at places beyond the length trained before"),
    Metric("loss.<which>", "nats/token", "lower", "cross entropy: first, final, dense, moe, moe.first, ..."),
    Metric("long_share.<which>", "share", "none", "tokens of long documents in the corpus, in the extension's text"),
    Metric("bits_per_byte.<language>", "bits/byte", "lower", "held-out text by language"),
    Metric("needle.accuracy", "share", "higher", "needles whose value is repeated exactly"),
    Metric("needle.count", "needles", "none", "needles behind needle.accuracy"),
    Metric("needle.accuracy.<which>", "share", "higher", "needle accuracy before the stage or at another length"),
    Metric("tokens_per_second", "tokens/s", "higher", "real tokens trained per second of the training loop"),
    Metric("mfu", "share", "higher", "FLOPs the model needs over the dense bf16 peak of its GPUs, median step"),
    Metric("mfu.<which>", "share", "higher", "same, the output projection not counted"),
    Metric("worker_wait_seconds", "seconds", "lower", "longest wait for the slowest worker to begin a step, median"),
    Metric("gpu_memory_bytes", "bytes", "lower", "most memory that torch held at once on rank 0's GPU"),
    Metric("parameters.<which>", "parameters", "none", "total, active or non-embedding parameters"),
    Metric("experts.dead", "experts", "lower", "experts that receive less than a tenth of a fair share"),
    Metric("experts.<which>", "ratio", "none", "expert load: max over mean, entropy"),
    Metric("threads", "threads", "none", "CPU threads the training loop chose by a short measurement"),
    # instructions
    Metric("tags.<which>", "tags", "none", "tags after each step of the ontology"),
    Metric("coverage.<which>", "share", "higher", "tag coverage of the selected or of a random set"),
    Metric("complexity.<which>", "tags", "higher", "mean complexity of a set of instructions"),
    Metric("rows.<which>", "rows", "none", "rows written by strategy or kind"),
    Metric("accepted.<strategy>", "share", "higher", "sampled responses a strategy accepted"),
    Metric("answers.<which>", "answers", "none", "sampled answers: all, cut, lost by an endpoint, not understood"),
    Metric("agreement.tau", "correlation", "higher", "Kendall tau between judges"),
    # alignment
    Metric("pass_rate", "share", "higher", "held-out verifiable prompts answered right, greedy"),
    Metric("pass_rate.<which>", "share", "higher", "same: sampled, before, or by task kind"),
    Metric("pass_rate.prompts", "prompts", "none", "prompts behind pass_rate"),
    Metric(
        "control.pass_rate", "share", "higher", "pass rate of the control that spends the same steps on the old data"
    ),
    Metric("control.pass_rate.<which>", "share", "higher", "same, sampled"),
    Metric("pair_accuracy", "share", "higher", "held-out pairs the reward model orders right"),
    Metric("pair_accuracy.<which>", "share", "higher", "same, by source"),
    Metric("reward.<which>", "reward", "higher", "mean reward at the first and last episode"),
    Metric("cut_share.<which>", "share", "lower", "rollouts cut at the token limit: at the start, of the kept policy"),
    Metric("kl.<which>", "nats/token", "lower", "divergence from the reference policy"),
    Metric("adamw.<which>", "as named", "none", "the online stage's figures with plain AdamW"),
    Metric("margin.<which>", "reward", "higher", "implicit reward margin of preference pairs"),
    Metric("kept_start", "0 or 1", "lower", "whether the online stage published the policy it started from"),
    Metric("prompts.<which>", "prompts", "none", "prompts the start was asked before the episodes, and those kept"),
    Metric("rollbacks", "rollbacks", "lower", "times the reward-hacking guard restored an earlier policy"),
    # evaluation
    Metric(
        "niah.<mode>.<length>.<which>", "share", "higher", "needle accuracy and count by mode and length (1x, 2x, ...)"
    ),
    Metric("loss.<mode>.<length>", "nats/token", "lower", "text loss by mode and length"),
    Metric("niah.<which>", "as named", "none", "settings of the needle grid"),
    Metric("harmful_rate.<category>.<language>", "share", "lower", "harmful responses"),
    Metric("harmful_rate_upper.<category>.<language>", "share", "lower", "upper end of its 95 % interval"),
    Metric("neither_rate", "share", "lower", "responses to harmful prompts that neither refuse nor comply"),
    Metric("benign_refusal_rate", "share", "lower", "refusals of benign prompts"),
    Metric("refusal_rate", "share", "higher", "refusals of harmful prompts"),
    Metric("unjudged_rate", "share", "lower", "responses without a verdict; to harmful prompts they count as harmful"),
    Metric("before.<which>", "share", "none", "a safety figure before alignment"),
    Metric(
        "judge.balanced_accuracy",
        "share",
        "higher",
        "mean of the safety judge's recalls of harmful and of harmless responses, on public labels of people",
    ),
    Metric("judge.<which>", "share", "higher", "the safety judge on labelled responses"),
    Metric("tasks.missing", "benchmarks", "lower", "benchmarks the recipe names that were not asked"),
    Metric("<task>.low", "share", "higher", "lower end of the 95 % interval of a benchmark's score"),
    Metric("<task>.chance", "share", "none", "score of blind guessing"),
    Metric("<task>.<metric>", "as named", "none", "a benchmark's figure: `mmlu.accuracy`, `gsm8k.exact_match`"),
    Metric("<task>.<metric>.<which>", "as named", "none", "a benchmark's figure for one model or subset"),
    Metric("<task>.contaminated_share", "share", "lower", "test items with a 13-gram in the training data"),
    # delivery
    Metric("export.max_logit_difference", "logit", "lower", "exported folder against the trained model, fp32"),
    Metric(
        "export.template_differences",
        "conversations",
        "lower",
        "conversations that the exported chat template renders otherwise than training did",
    ),
    Metric("export.ends_turn", "0 or 1", "higher", "whether generation with the exported settings ends with the turn"),
    Metric("gate.passed", "0 or 1", "higher", "whether the evaluation gate let the alias move"),
    Metric("report.bytes", "bytes", "lower", "size of the report page"),
)

_PART = re.compile(r"<[^>]+>")
_COMPILED = tuple(
    (re.compile("^" + ".+".join(re.escape(piece) for piece in _PART.split(metric.pattern)) + "$"), metric)
    for metric in METRICS
)


def find_metric(name: str) -> Metric | None:
    """The first listed metric whose pattern fits `name`, or None."""
    return next((metric for pattern, metric in _COMPILED if pattern.match(name)), None)


def check_metric(name: str) -> None:
    """Refuse a metric that is not listed.

    Raises:
        StageError: no pattern fits.
    """
    if find_metric(name) is None:
        raise StageError(
            f"unknown metric {name}",
            expected="a name listed in contracts/metrics.py",
            found=name,
            action="list it there with unit, direction and meaning",
        )
