"""Draw several responses per instruction, have them ranked, write demonstrations and preferences."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qwenops.contracts.conversation import PROMPTS, Conversation, read_conversations, write_conversations
from qwenops.contracts.gate import gate, preference_tables
from qwenops.contracts.preference import Preference, write_preferences
from qwenops.errors import RecipeError
from qwenops.generation.engine import Engine, Sample, count_unfinished
from qwenops.instructions.cleaning import Cleaner
from qwenops.instructions.judging import MACHINE_JUDGE, judge, second_judge
from qwenops.instructions.pairing import make_demonstration, make_pair, pair_split
from qwenops.instructions.rank.annotation import TASKS, read_rankings, write_tasks
from qwenops.instructions.rank.config import RankConfig
from qwenops.instructions.rank.ranking import agreement, mean_ranks, pairs_of_ranking, ranks_from_grades
from qwenops.platform.engines import open_stage_engine
from qwenops.platform.stage.handle import Stage
from qwenops.platform.storage import addresses


@dataclass(frozen=True)
class Candidates:
    """Different whole responses to one instruction, and the strategy that gave each first."""

    row: Conversation
    samples: tuple[Sample, ...]
    strategies: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The responses' texts."""
        return tuple(sample.text for sample in self.samples)


@dataclass(frozen=True)
class Ranked:
    """Candidates with a mean rank and an acceptance each, and who judged."""

    candidates: Candidates
    ranks: tuple[float, ...]
    accepted: tuple[bool, ...]
    judge: str


def run(config: RankConfig, *, instructions: Path, checkpoint: Path, stage: Stage) -> None:
    """Write `demonstrations.jsonl`, `preferences.jsonl` and, for people, `annotation_tasks.jsonl`.

    Raises:
        RecipeError: people rank, and no rankings are named yet.
        ContractError: the rankings are not those of these responses.
    """
    pool = read_conversations(instructions, "train", PROMPTS)
    rows = random.Random(stage.seed).sample(pool, min(config.prompts, len(pool)))
    engine = open_stage_engine(config.engine, stage.scratch, checkpoint)
    asked, answers = _draw(rows, config, engine)
    drawn = [c for c in asked if len(c.samples) > 1]
    cleaner = Cleaner(config.decontamination, stage)
    candidates = cleaner.keep(drawn, lambda c: "\n".join([*(turn["content"] for turn in c.row.prompt), *c.texts]))
    ranked, tau = (
        _rank_by_people(candidates, config, stage) if config.judge == "people" else _rank_by_machine(candidates, config)
    )
    demonstrations = [row for item in ranked for row in _demonstration(item, engine.name, config)]
    preferences = [pair for item in ranked for pair in _pairs(item, engine.name, config)]
    write_conversations(stage.out, demonstrations)
    write_preferences(stage.out, preferences)
    if preferences:
        for failure in gate("preferences.json", *preference_tables(map(asdict, preferences)), stage.out).failures:
            stage.warn(failure)
    stage.metric("rows.demonstrations", len(demonstrations))
    stage.metric("rows.preferences", len(preferences))
    stage.metric("accepted.ranked", len(demonstrations) / max(len(rows), 1))
    for name in ("all", "cut", "lost"):
        stage.metric(f"answers.{name}", answers[name])
    if tau is not None:
        stage.metric("agreement.tau", tau)
    cleaner.report()
    unusable, unranked = len(rows) - len(drawn), len(candidates) - len(ranked)
    dropped = {"one_response": unusable, **cleaner.dropped, "unranked": unranked}
    stage.count(read=len(rows), kept=len(ranked), dropped=dropped)


def _draw(rows: Sequence[Conversation], config: RankConfig, engine: Engine) -> tuple[list[Candidates], Counter[str]]:
    """Responses of every strategy, and how many were drawn, cut and lost.

    Equal and empty ones are left out, and those that did not end: a judge cannot rank half an answer.
    """
    prompts = [row.prompt for row in rows]
    found: list[dict[str, tuple[Sample, str]]] = [{} for _ in rows]
    answers = Counter[str]()
    for sampling in config.strategies:
        for texts, group in zip(found, engine.generate(prompts, sampling), strict=True):
            answers += count_unfinished(group) + Counter(all=len(group))
            for sample in group:
                if sample.is_whole and sample.text.strip():
                    texts.setdefault(sample.text.strip(), (sample, sampling.label))
    drawn = [
        Candidates(row, tuple(sample for sample, _ in texts.values()), tuple(label for _, label in texts.values()))
        for row, texts in zip(rows, found, strict=True)
    ]
    return drawn, answers


def _rank_by_machine(candidates: list[Candidates], config: RankConfig) -> tuple[list[Ranked], float | None]:
    ranked: list[Ranked] = []
    first, second = list[list[int]](), list[list[int]]()
    for item in candidates:
        grades = [judge(item.row, text) for text in item.texts]
        first.append(ranks_from_grades(grades))
        second.append(ranks_from_grades([second_judge(item.row, text) for text in item.texts]))
        accepted = tuple(grade >= config.acceptance for grade in grades)
        ranked.append(Ranked(item, tuple(map(float, first[-1])), accepted, MACHINE_JUDGE))
    return ranked, agreement(first, second)


def _rank_by_people(
    candidates: list[Candidates], config: RankConfig, stage: Stage
) -> tuple[list[Ranked], float | None]:
    """Export the tasks, and use the rankings that the recipe names; without any the run pauses here.

    Raises:
        RecipeError: nothing is ranked yet; says where the tasks are and how to go on.
        ContractError: see `read_rankings`.
    """
    prompts = {item.row.id: item.row.instruction for item in candidates}
    responses = {item.row.id: item.texts for item in candidates}
    # The scratch folder stays when the stage ends here.
    folder = stage.out if config.annotations else stage.scratch
    number = write_tasks(prompts, responses, config.annotators, stage.seed, folder)
    if not config.annotations:
        place = f"{addresses.address_of(folder, stage.context)}/{TASKS}"
        raise RecipeError(
            f"the run pauses: {number} annotation tasks wait for people in {place}",
            expected=f"{stage.node}.annotations, a file of rankings of these tasks",
            found="no file",
            action=f"have them ranked (components/qwenops/instructions/rank/README.md has the format), then run again "
            f"with --set {stage.node}.annotations=FILE; finished stages are kept. A machine judge that is labelled as "
            f"such ranks with --set {stage.node}.judge=machine",
        )
    judged = read_rankings(Path(config.annotations), prompts, responses, stage.seed)
    ranked: list[Ranked] = []
    views: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for item in candidates:
        people = judged.get(item.row.id, {})
        if people:
            rankings = [people[name].ranks for name in sorted(people)]
            accepted = tuple(all(column) for column in zip(*(p.acceptable for p in people.values()), strict=True))
            name = "person:" + "+".join(sorted(people))
            ranked.append(Ranked(item, tuple(mean_ranks(rankings)), accepted, name))
            if len(rankings) > 1:
                views["first"].append(rankings[0])
                views["second"].append(rankings[1])
    return ranked, agreement(views["first"], views["second"])


def _demonstration(item: Ranked, model: str, config: RankConfig) -> list[Conversation]:
    """The best response as a demonstration; none when it is not acceptable or its pairs are held out."""
    best = min(range(len(item.ranks)), key=lambda i: (item.ranks[i], i))
    row = item.candidates.row
    if not item.accepted[best] or pair_split(row, config.heldout_share) == "heldout":
        return []
    sample = item.candidates.samples[best]
    provenance = {"model": model, "sampling": item.candidates.strategies[best], "judge": item.judge}
    return [make_demonstration(row, sample, strategy="ranked", provenance=provenance)]


def _pairs(item: Ranked, model: str, config: RankConfig) -> list[Preference]:
    row, samples, strategies = item.candidates.row, item.candidates.samples, item.candidates.strategies
    return [
        make_pair(
            row,
            samples[i],
            samples[j],
            strategy="ranked",
            judge=item.judge,
            split=pair_split(row, config.heldout_share),
            margin=item.ranks[j] - item.ranks[i],
            provenance={"model": model, "chosen": strategies[i], "rejected": strategies[j]},
        )
        for i, j in pairs_of_ranking(item.ranks, config.pairs)
    ]
