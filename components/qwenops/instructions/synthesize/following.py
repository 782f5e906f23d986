"""Execution feedback for instruction following (report 4.1.2; AutoIF): checks of a constraint, checked themselves.

For a constraint, several functions `evaluate(response)` and several labelled cases are written. A function that does
not agree with most cases, a case that most functions contradict, and a function that reaches for the network are
dropped. The functions that are left judge responses: a share above one half accepts, zero rejects.
With `writer` "written" functions (a faulty one among them), cases and responses are the project's own. AutoIF's
back-translation check (does a description of the function contradict the constraint?) is not done.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from qwenops.contracts.conversation import Conversation, ask, conversation_id
from qwenops.generation.engine import Engine, Sampling
from qwenops.instructions.pairing import make_demonstration, make_pair, pair_split
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.result import SynthesisResult
from qwenops.platform.sandbox.judging import Program, Verdict
from qwenops.tasks.constraints import Constraint, constraints_met_by

STRATEGY = "instruction_following"
_NETWORK = re.compile(r"\b(requests|urllib|socket|http|download|aiohttp)\b")
_AUTHOR_PROMPT = """Write a Python function `evaluate(response)` that returns whether a response follows the \
instruction below, and three test cases. Reply with JSON only:
{{"func": str, "cases": [{{"input": str, "output": true or false}}]}}.
Instruction: {}"""

Judge = Callable[[Sequence[Program]], list[Verdict]]
"""Judges programs by their tests in a sandbox."""


@dataclass(frozen=True)
class Checks:
    """Functions and labelled cases written for one constraint."""

    functions: tuple[str, ...]
    cases: tuple[tuple[str, bool], ...]


def run_functions(functions: Sequence[str], responses: Sequence[str], judge: Judge) -> list[list[bool | None]]:
    """What each function says of each response; None where it raised, did not compile or did not finish.

    Every function computes in a process of its own, so that none can change what another says.
    """
    tests = tuple(f"assert evaluate({response!r})" for response in responses)
    verdicts = judge([Program(source, tests, ("evaluate",)) for source in functions])
    says = {"passed": True, "failed": False}
    return [[says.get(result) for result in verdict.results] for verdict in verdicts]


def cross_validate(checks: Checks, agreement: float, judge: Judge) -> Checks:
    """Keep functions and cases that agree with more than `agreement` of the others."""
    functions = [source for source in checks.functions if not _NETWORK.search(source)]
    if not functions or not checks.cases:
        return Checks((), ())
    every = run_functions(functions, [text for text, _ in checks.cases], judge)
    # A function that never gave a verdict (it did not compile, or always raised) has no vote on the cases.
    sound = [place for place, row in enumerate(every) if any(verdict is not None for verdict in row)]
    functions, verdicts = [functions[place] for place in sound], [every[place] for place in sound]
    if not functions:
        return Checks((), ())
    says = [[verdict is label for verdict, (_, label) in zip(row, checks.cases, strict=True)] for row in verdicts]
    good_cases = [j for j in range(len(checks.cases)) if sum(row[j] for row in says) / len(says) > agreement]
    kept = [
        source
        for source, row in zip(functions, says, strict=True)
        if good_cases and sum(row[j] for j in good_cases) / len(good_cases) > agreement
    ]
    return Checks(tuple(kept), tuple(checks.cases[j] for j in good_cases))


def written_checks(constraint: Constraint, response: str) -> Checks:
    """The project's functions for a constraint (one of four is wrong) and as many good cases as bad ones.

    Balance matters: with mostly good cases a function that always says yes would pass the cross-validation.
    """
    right = constraint.source
    functions = (
        right,
        right.replace("response.", "str(response)."),
        right.replace("return ", "return True and "),
        "def evaluate(response):\n    return len(response) > 3\n",
    )
    texts = dict.fromkeys([response, *transforms(response)])
    bad = [text for text in texts if not constraint.check(text)]
    good = [text for text in texts if constraint.check(text)][: len(bad)]
    return Checks(functions, (*((text, True) for text in good), *((text, False) for text in bad[: len(good)])))


def llm_checks(constraint: Constraint, engine: Engine, number: int) -> Checks:
    """Functions and cases a language model writes, `number` times."""
    sampling = Sampling(temperature=0.7, n=number, max_new_tokens=512)
    functions, cases = list[str](), dict[str, bool]()
    for sample in engine.generate([ask(_AUTHOR_PROMPT.format(constraint.text))], sampling)[0]:
        text = sample.text
        try:
            plain = json.loads(text[text.find("{") : text.rfind("}") + 1])
            functions.append(str(plain["func"]))
            cases |= {str(case["input"]): bool(case["output"]) for case in plain["cases"]}
        except (ValueError, KeyError, TypeError):
            continue
    return Checks(tuple(functions), tuple(cases.items()))


def transforms(response: str) -> list[str]:
    """Changed versions of a response that break one constraint or another, in place of a model's samples."""
    words = response.split()
    return [
        " ".join([*words, "and", *words]),
        " ".join(words[1:]) or "-",
        response + " 7",
        "\n\n".join(words),
        response.rstrip(".!?") + ",",
    ]


def follow(
    row: Conversation,
    checks: Checks,
    constraint: Constraint,
    responses: Sequence[str],
    model: str,
    judge: Judge,
    config: SynthesizeConfig,
) -> SynthesisResult:
    """Judge responses to the instruction with the constraint added, by the functions that survived."""
    made = SynthesisResult()
    text = f"{row.instruction} {constraint.text}"
    asked = replace(
        row,
        id=conversation_id(STRATEGY, row.id, constraint.text),
        messages=ask(text),
        parent_id=row.id,
        tags=(*row.tags, constraint.name),
    )
    verdicts = run_functions(checks.functions, responses, judge)
    accuracy = [sum(r[j] is True for r in verdicts) / len(verdicts) for j in range(len(responses))]
    provenance = {
        "model": model,
        "judge": "machine:checks",
        "functions": len(checks.functions),
        "added": constraint.text,
    }
    split = pair_split(asked, config.heldout_share)
    good = [response for response, share in zip(responses, accuracy, strict=True) if share > config.check_agreement]
    bad = [response for response, share in zip(responses, accuracy, strict=True) if share == 0]
    made.judged, made.accepted = len(responses), len(good)
    if good and split == "train":
        made.demonstrations = [make_demonstration(asked, good[0], strategy=STRATEGY, provenance=provenance)]
    made.preferences = [
        make_pair(asked, good[0], loser, strategy=STRATEGY, judge="machine:checks", split=split, provenance=provenance)
        for loser in bad[: config.max_pairs_per_prompt]
        if good and loser != good[0]
    ]
    return made


def pick_constraint(row: Conversation, place: int) -> Constraint | None:
    """A constraint that the row's answer meets, a different kind for each place."""
    met = constraints_met_by(row.response)
    return met[place % len(met)] if met else None
