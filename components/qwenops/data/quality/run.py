"""Filter documents by rules and by models that are trained here; scores are stored, thresholds are applied last."""

import json
import shutil
from collections import Counter
from dataclasses import asdict
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.contracts.document import Funnel, part_paths, sample_dropped
from qwenops.data.accounting import record_funnel
from qwenops.data.quality.classifier import Model, in_hash_order, make_examples, train
from qwenops.data.quality.config import QualityConfig, RubricConfig
from qwenops.data.quality.offensive import train_offensive
from qwenops.data.quality.passes import Scorers, rule_part, sample_of, score_part, select_part
from qwenops.data.quality.perplexity import save_models, train_models
from qwenops.data.quality.rubric import RubricScorer
from qwenops.data.quality.scores import SETS, Thresholds, reasons_of, thresholds_of
from qwenops.errors import RecipeError
from qwenops.platform.ray.documents import map_parts, publish
from qwenops.platform.stage.handle import Stage

_LIGHT = ["id", "lang", "rules", "quality", "perplexity", "offensive"]


def run(config: QualityConfig, *, documents: Path, stage: Stage) -> None:
    """Write `documents/` and `scores/part-*.parquet`, the funnel, the models and `quality.json`.

    Raises:
        ContractError: too few documents pass the rules to train the classifier, or a labelled line is none.
        ContractError: no document is left.
        RecipeError: a model is asked for that the config does not name.
    """
    parts = part_paths(documents)
    passes = [stage.scratch / name for name in ("ruled", "scored", "selected")]
    with stage.progress(len(passes) * len(parts), "parts") as progress:
        ruled = map_parts(stage.context, parts, partial(rule_part, config=config), passes[0], progress=progress)
        samples = (pq.read_table(path) for path in part_paths(passes[0], "sample"))
        scorers, facts = _train(sample_of(samples, config), config, stage)
        scoring = partial(score_part, scorers=scorers, config=config)
        map_parts(stage.context, part_paths(passes[0], "ruled"), scoring, passes[1], progress=progress)
        scored = part_paths(passes[1], "scored")
        scores = pa.concat_tables(pq.read_table(path, columns=_LIGHT) for path in scored)
        limits = thresholds_of(config, scores)
        grades = _grades(scored, scores, limits, config.rubric, stage) if config.rubric.num_documents else {}
        selecting = partial(select_part, grades=grades, limits=limits, keep=config.keep, node=stage.node)
        summaries = map_parts(stage.context, scored, selecting, passes[2], progress=progress)
    for name in ("documents", "scores"):
        publish(passes[2], name, stage.out)
    dropped = sample_dropped(map(pq.read_table, part_paths(passes[2], "dropped")))
    record_funnel(stage, reduce(add, (Funnel(**summary["funnel"]) for summary in summaries)), dropped)
    masked = reduce(add, (Counter(summary["pii"]) for summary in ruled), Counter[str]())
    for kind, count in masked.items():
        stage.metric(f"pii.{kind}", count)
    sizes = {name: np.sum([summary["sets"][name] for summary in summaries], axis=0).tolist() for name in SETS}
    facts |= {
        "documents": {name: documents for name, (documents, _) in sizes.items()},
        "bytes": {name: size for name, (_, size) in sizes.items()},
        "limits": {name: asdict(limit) | {"forgiven": sorted(limit.forgiven)} for name, limit in limits.items()},
        "pii": dict(sorted(masked.items())),
        "kept": config.keep,
    }
    (stage.out / "quality.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _train(sample: pa.Table, config: QualityConfig, stage: Stage) -> tuple[Scorers, dict[str, Any]]:
    """Train every model that the config asks for, and keep it beside the documents."""
    good, failed = (sample.filter(pc.equal(sample["role"], role)) for role in ("good", "failed"))
    classifier, areas = train(make_examples(good, failed, config.classifier, stage.seed), config.classifier)
    _save(classifier, stage.out / "classifier.npz")
    stage.metric("classifier.auc", areas["all"])
    facts: dict[str, Any] = {"auc": areas}
    offensive = None
    if config.offensive.labelled:
        offensive, facts["offensive_auc"] = train_offensive(config.offensive, config.classifier)
        _save(offensive, stage.out / "offensive.npz")
        stage.metric("offensive.auc", facts["offensive_auc"])
    perplexity = None
    if config.perplexity.sources:
        trusted = sample.filter(pc.starts_with(sample["role"], "trusted "))
        perplexity = stage.scratch / "perplexity.npz"
        save_models(train_models(trusted, config.perplexity), perplexity)
        shutil.copy(perplexity, stage.out / perplexity.name)
        if not trusted.num_rows:
            stage.warn("no document of quality.perplexity.sources passes the rules: nothing has a perplexity")
    return Scorers(classifier, offensive, perplexity), facts


def _save(model: Model, path: Path) -> None:
    np.savez_compressed(path, weights=model.weights, bias=model.bias)


def _grades(
    parts: list[Path], scores: pa.Table, limits: dict[str, Thresholds], config: RubricConfig, stage: Stage
) -> dict[str, float]:
    """Grades by id, of documents that the relaxed set would keep without them, the first by a hash of the id."""
    if not config.engine.model:
        raise RecipeError(
            "quality.rubric has no model",
            expected="quality.rubric.engine.model",
            found="empty",
            action="name a model or an endpoint, or set quality.rubric.num_documents to 0",
        )
    blank = scores.append_column("grade", pa.nulls(scores.num_rows, pa.float32()))
    going = [
        i for i, word in zip(scores["id"].to_pylist(), reasons_of(blank, limits["relaxed"]), strict=True) if not word
    ]
    wanted = {row["id"] for row in in_hash_order({"id": i} for i in going)[: config.num_documents]}
    texts: dict[str, str] = {}
    for path in parts:
        for row in pq.read_table(path, columns=["id", "text"]).to_pylist():
            if row["id"] in wanted:
                texts[row["id"]] = row["text"][: config.num_characters]
    # torch, which only this score needs.
    from qwenops.platform import engines

    engine = engines.open_stage_engine(config.engine, stage.scratch)
    scorer = RubricScorer(engine, config, Path(stage.context.cache) / "rubric")
    with stage.progress(len(texts), "graded") as progress:
        found = scorer.grade(list(texts.values()), progress.advance)
    unread = found.count(None)
    if unread:
        stage.warn(f"{unread} of {len(found)} answers to the rubric hold no grade; those documents pass ungraded")
    return {name: grade for name, grade in zip(texts, found, strict=True) if grade is not None}
