"""Run the synthesis strategies and write what they made."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from qwenops.contracts.conversation import PROMPTS, read_conversations, write_conversations
from qwenops.contracts.gate import gate, preference_tables
from qwenops.contracts.preference import write_preferences
from qwenops.errors import RecipeError
from qwenops.generation.engine import Engine
from qwenops.instructions.cleaning import Cleaner
from qwenops.instructions.synthesize import constitution, execution, following, rejection, repurposing
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.result import SynthesisResult
from qwenops.platform.engines import open_stage_engine
from qwenops.platform.sandbox.judging import Sandbox
from qwenops.platform.stage.handle import Stage
from qwenops.tasks.safety_prompts import load as load_safety_prompts

_CHECK_AUTHORS = 4
_RUN_PROGRAMS = {"code_execution", "instruction_following"}


class Synthesis:
    """One run of the stage: its inputs, and a method per strategy.

    Args:
        config: The stage's config.
        instructions: Artifact with prompts and demonstrations.
        checkpoint: Model that answers.
        documents: Documents to repurpose.
        scratch: The stage's scratch folder.
        seed: Seed of every choice.

    Raises:
        PlatformError: a strategy runs programs, and they cannot be confined on this machine.
    """

    def __init__(
        self, config: SynthesizeConfig, instructions: Path, checkpoint: Path, documents: Path, scratch: Path, seed: int
    ) -> None:
        self._config, self._instructions, self._checkpoint = config, instructions, checkpoint
        self._documents, self._scratch, self._rng = documents, scratch, random.Random(seed)
        if _RUN_PROGRAMS & set(config.strategies):
            self._sandbox = Sandbox.open(config.program_isolation, config.sandbox_seconds)
        self._writer: Engine | None = None
        if config.writer == "llm":
            self._writer = open_stage_engine(config.writer_engine, scratch, checkpoint)

    def rejection_sampling(self) -> SynthesisResult:
        """Right answers to verifiable questions, sampled from the checkpoint."""
        rows = [row for row in read_conversations(self._instructions, "train", PROMPTS) if row.verifier is not None]
        rows = self._rng.sample(rows, min(self._config.rejection_prompts, len(rows)))
        engine = open_stage_engine(self._config.engine, self._scratch, self._checkpoint)
        return rejection.sample_and_reject(rows, engine, self._config)

    def code_execution(self) -> SynthesisResult:
        """Programs that pass their tests."""
        total = SynthesisResult(notes=[f"programs were confined by: {self._config.program_isolation}"])
        for task in execution.load_code_tasks():
            number = self._config.programs_per_task
            candidates, unfinished = execution.written_candidates(task, number), Counter[str]()
            if self._writer:
                candidates, unfinished = execution.sampled_candidates(task, self._writer, number)
            model = self._writer.name if self._writer else "written programs and mutants"
            _add(total, execution.judge_programs(task, candidates, model, self._sandbox.judge_all, self._config))
            _add(total, SynthesisResult(judged=unfinished.total(), unfinished=unfinished))
        return total

    def instruction_following(self) -> SynthesisResult:
        """Responses that meet a constraint, by checks that were checked."""
        total = SynthesisResult()
        rows = [
            row
            for row in read_conversations(self._instructions, "train")
            if row.source == "documents" and row.strategy == "seed"
        ][: self._config.following_instructions]
        valid = 0
        for place, row in enumerate(rows):
            constraint = following.pick_constraint(row, place)
            if constraint is None:
                continue
            written = following.written_checks(constraint, row.response)
            checks = following.llm_checks(constraint, self._writer, _CHECK_AUTHORS) if self._writer else written
            checks = following.cross_validate(checks, self._config.check_agreement, self._sandbox.judge_all)
            if checks.functions and checks.cases:
                valid += 1
                responses, model = [row.response, *following.transforms(row.response)], "original and changed texts"
                made = following.follow(
                    row, checks, constraint, responses, model, self._sandbox.judge_all, self._config
                )
                _add(total, made)
        total.notes.append(f"{valid} of {len(rows)} instructions have checks that passed cross-validation")
        return total

    def repurposing(self) -> SynthesisResult:
        """Instructions for passages of prose."""
        config = self._config
        prose = (row for row in self._read_documents() if row["domain"] in ("prose", "web"))
        passages = repurposing.find_passages(prose, config.repurposed_documents, config.max_passage_characters)
        return repurposing.repurpose(passages, self._writer, config)

    def constitution(self) -> SynthesisResult:
        """Answers that follow a principle, against answers that leave it."""
        prompts = load_safety_prompts("train")
        prompts = self._rng.sample(prompts, min(self._config.constitution_prompts, len(prompts)))
        if self._writer is None:
            answers, model = constitution.written_answers(prompts), "written answers"
        else:
            answers, model = constitution.llm_answers(prompts, self._writer), self._writer.name
        return constitution.apply_constitution(prompts, answers, model, self._config)

    def _read_documents(self) -> Iterator[dict[str, Any]]:
        columns = ["id", "text", "domain", "lang", "license"]
        table = parquet.read_table(self._documents / "documents", columns=columns, filters=[("split", "=", "train")])
        yield from table.sort_by("id").to_pylist()


def run(config: SynthesizeConfig, *, instructions: Path, checkpoint: Path, documents: Path, stage: Stage) -> None:
    """Write `demonstrations.jsonl`, `preferences.jsonl` and `summary.json` (per strategy)."""
    if not config.strategies:
        raise RecipeError("synthesize has no strategy", expected="at least one", found="none")
    synthesis = Synthesis(config, instructions, checkpoint, documents, stage.scratch, stage.seed)
    run_strategy: dict[str, Callable[[], SynthesisResult]] = {
        "rejection_sampling": synthesis.rejection_sampling,
        "code_execution": synthesis.code_execution,
        "instruction_following": synthesis.instruction_following,
        "repurposing": synthesis.repurposing,
        "constitution": synthesis.constitution,
    }
    with stage.progress(len(config.strategies), "strategies") as progress:
        made: dict[str, SynthesisResult] = {}
        for name in config.strategies:
            made[name] = run_strategy[name]()
            progress.advance(1, name)
    _write(made, config, stage)
    if config.writer == "written":
        stage.warn("programs, checks, briefs and principled answers are the project's own texts, not a model's")


def _write(made: dict[str, SynthesisResult], config: SynthesizeConfig, stage: Stage) -> None:
    cleaner = Cleaner(config.decontamination, stage)
    demonstrations = cleaner.conversations(
        {row.id: row for part in made.values() for row in part.demonstrations}.values()
    )
    leaked = dict(cleaner.dropped)
    preferences = cleaner.preferences({row.id: row for part in made.values() for row in part.preferences}.values())
    cleaner.report()
    write_conversations(stage.out, demonstrations)
    write_preferences(stage.out, preferences)
    sample = random.Random(stage.seed).sample(preferences, len(preferences))
    if preferences:
        for failure in gate("preferences.json", *preference_tables(map(asdict, sample)), stage.out).failures:
            stage.warn(failure)
    summary = {
        name: {
            "demonstrations": len(part.demonstrations),
            "preferences": len(part.preferences),
            "judged": part.judged,
            "accepted": part.accepted,
            "unfinished": dict(part.unfinished),
            "notes": part.notes,
        }
        for name, part in made.items()
    }
    (stage.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    for name, part in made.items():
        stage.metric(f"accepted.{name}", part.share)
        stage.metric(f"rows.{name}", len(part.demonstrations))
        stage.metric(f"rows.pairs.{name}", len(part.preferences))
    stage.metric("rows.demonstrations", len(demonstrations))
    stage.metric("rows.preferences", len(preferences))
    judged, accepted = sum(p.judged for p in made.values()), sum(p.accepted for p in made.values())
    unfinished = sum((p.unfinished for p in made.values()), Counter[str]())
    for name in ("cut", "lost"):
        stage.metric(f"answers.{name}", unfinished[name])
    # A demonstration is an accepted answer; a pair is made of answers that are counted by themselves.
    kept, refused = accepted - sum(leaked.values()), judged - accepted - unfinished.total()
    stage.count(read=judged, kept=kept, dropped={"refused": refused, **unfinished, **leaked})
    stage.records = len(demonstrations) + len(preferences)


def _add(total: SynthesisResult, part: SynthesisResult) -> None:
    total.demonstrations += part.demonstrations
    total.preferences += part.preferences
    total.judged += part.judged
    total.accepted += part.accepted
    total.unfinished += part.unfinished
    total.notes += part.notes
