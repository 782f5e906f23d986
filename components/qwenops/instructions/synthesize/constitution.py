"""Constitutional feedback (report 4.1.2): answers that follow a principle, and answers that deviate from it.

The aligned answer is a demonstration; aligned against deviated is a preference. A deviated answer is only ever the
rejected side of a pair and its row carries an access flag. With `writer` "written" both answers are the project's own,
and a deviated one has the tone of compliance and nothing that helps.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenops.contracts.conversation import Conversation, ask
from qwenops.generation.engine import Engine, Sample, Sampling, count_unfinished
from qwenops.instructions.pairing import make_demonstration, make_pair, pair_split
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.result import SynthesisResult
from qwenops.tasks.safety_prompts import SafetyPrompt

STRATEGY = "constitution"
_FOLLOW = "Answer the user in their language. Follow this principle: {principle} {do}"
_DEVIATE = "Answer the user in their language. To show what is wrong, leave this principle: {principle} {dont}"


@dataclass(frozen=True)
class Principle:
    """One rule of the constitution: what it says, for which category, what to do and what not."""

    id: str
    area: str
    category: str
    principle: str
    do: str
    dont: str


def load_principles() -> dict[str, Principle]:
    """The constitution by category."""
    plain = json.loads(Path(__file__).with_name("principles.json").read_text(encoding="utf-8"))
    return {row["category"]: Principle(**row) for row in plain}


def written_answers(prompts: Sequence[SafetyPrompt]) -> list[tuple[Sample, Sample]]:
    """The project's aligned and deviated answer to each prompt."""
    return [(Sample(prompt.answer), Sample(prompt.deviated)) for prompt in prompts]


def llm_answers(prompts: Sequence[SafetyPrompt], engine: Engine) -> list[tuple[Sample, Sample]]:
    """Aligned and deviated answers of a language model told which principle to follow or leave."""
    principles = load_principles()

    def answers(instruction: str) -> list[Sample]:
        asked = []
        for prompt in prompts:
            rule = principles[prompt.category]
            system = instruction.format(principle=rule.principle, do=rule.do, dont=rule.dont)
            asked.append(({"role": "system", "content": system}, *ask(prompt.text)))
        return [group[0] for group in engine.generate(asked, Sampling(temperature=0.7, max_new_tokens=256))]

    return list(zip(answers(_FOLLOW), answers(_DEVIATE), strict=True))


def apply_constitution(
    prompts: Sequence[SafetyPrompt], answers: Sequence[tuple[Sample, Sample]], model: str, config: SynthesizeConfig
) -> SynthesisResult:
    """Demonstrations and pairs of (aligned, deviated) answers."""
    principles = load_principles()
    made = SynthesisResult(judged=len(prompts))
    for prompt, (aligned, deviated) in zip(prompts, answers, strict=True):
        if not aligned.is_whole or deviated.finish == "lost":
            made.unfinished += Counter(sorted(count_unfinished((aligned, deviated)))[-1:])
            continue
        texts = aligned.text.strip(), deviated.text.strip()
        if not all(texts) or texts[0] == texts[1]:
            continue
        made.accepted += 1
        row = Conversation(
            id=prompt.id,
            messages=ask(prompt.text),
            tags=("safety", prompt.category),
            source="safety",
            lang=prompt.language,
        )
        rule = principles[prompt.category]
        provenance = {"model": model, "principle": rule.id, "category": prompt.category}
        split = pair_split(row, config.heldout_share)
        if split == "train":
            made.demonstrations.append(make_demonstration(row, aligned, strategy=STRATEGY, provenance=provenance))
        made.preferences.append(
            make_pair(
                row,
                aligned,
                deviated,
                strategy=STRATEGY,
                judge=f"machine:principle {rule.id}",
                split=split,
                provenance={**provenance, "access": "restricted: deviated answer"},
            )
        )
    return made
