"""Execution feedback for code: candidates run against tests in a sandbox; what passes teaches (report 4.1.2).

A test is valid when the reference solution passes it or, without a reference, when most candidates do; the rest say
more about the test than about the programs. With `writer` "written" the candidates are the project's own programs and
mutants of them, because a very small model writes no program that runs; rows say so in their provenance.
"""

import ast
import builtins
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenops.contracts.conversation import Conversation, ask, conversation_id
from qwenops.generation.engine import Engine, Sampling, count_unfinished
from qwenops.instructions.pairing import make_demonstration, make_pair, pair_split
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.mutation import mutate
from qwenops.instructions.synthesize.result import SynthesisResult
from qwenops.platform.sandbox.judging import Program, Verdict
from qwenops.tasks.code_answers import find_program, parses

STRATEGY = "code_execution"
Judge = Callable[[Sequence[Program]], list[Verdict]]
"""Judges programs by their tests in a sandbox."""


@dataclass(frozen=True)
class CodeTask:
    """A coding question: expressions that must be true, and solutions known to be right (none for a model to write)."""

    name: str
    instruction: str
    solutions: tuple[str, ...]
    tests: tuple[str, ...]


def load_code_tasks() -> list[CodeTask]:
    """The project's own coding tasks; each has one wrong test now and then, as a model's tests have."""
    plain = json.loads(Path(__file__).with_name("programs.json").read_text(encoding="utf-8"))
    return [
        CodeTask(task["name"], task["instruction"], tuple(task["solutions"]), tuple(task["tests"])) for task in plain
    ]


def written_candidates(task: CodeTask, number: int) -> list[str]:
    """The task's solutions and mutants of them."""
    mutants = [mutant for solution in task.solutions for mutant in mutate(solution)]
    return list(dict.fromkeys([*task.solutions, *mutants]))[:number]


def sampled_candidates(task: CodeTask, engine: Engine, number: int) -> tuple[list[str], Counter[str]]:
    """Programs a model writes for the task, only whole ones that parse; and how many answers were cut or lost."""
    prompt = ask(f"{task.instruction} Reply with Python code only.")
    (samples,) = engine.generate([prompt], Sampling(temperature=0.8, top_p=0.95, n=number, max_new_tokens=512))
    programs = [find_program(sample.text, ()).strip() for sample in samples if sample.is_whole]
    return list(dict.fromkeys(program for program in programs if parses(program))), count_unfinished(samples)


def run_tests(programs: Sequence[str], tests: Sequence[str], judge: Judge) -> list[tuple[bool, ...]]:
    """Which tests each program passes: expressions that must be true, of names the tests do not define themselves."""
    used = {node.id for test in tests for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
    names = tuple(sorted(used - set(dir(builtins))))
    scripts = tuple(f"assert ({test}) is True" for test in tests)
    verdicts = judge([Program(program, scripts, names) for program in programs])
    return [tuple(result == "passed" for result in verdict.results) for verdict in verdicts]


def judge_programs(
    task: CodeTask, candidates: Sequence[str], model: str, judge: Judge, config: SynthesizeConfig
) -> SynthesisResult:
    """Run every candidate on the valid tests; those that pass all teach, the widest gaps make pairs."""
    made = SynthesisResult()
    results = dict(zip(candidates, run_tests(candidates, task.tests, judge), strict=True))
    valid = _valid_tests(task, results)
    if not valid or not results:
        return made
    rate = {program: sum(passed[i] for i in valid) / len(valid) for program, passed in results.items()}
    row = Conversation(
        id=conversation_id("code", task.instruction), messages=ask(task.instruction), tags=("code",), source="code"
    )
    provenance = {
        "model": model,
        "judge": "machine:tests",
        "task": task.name,
        "tests": len(task.tests),
        "valid_tests": len(valid),
    }
    split = pair_split(row, config.heldout_share)
    good = [program for program in rate if rate[program] == 1]
    bad = sorted((program for program in rate if rate[program] < 1), key=lambda program: rate[program])
    made.judged, made.accepted = len(rate), len(good)
    if split == "train":
        made.demonstrations = [
            make_demonstration(row, program, strategy=STRATEGY, provenance=provenance) for program in good
        ]
    made.preferences = [
        make_pair(
            row,
            winner,
            loser,
            strategy=STRATEGY,
            judge="machine:tests",
            split=split,
            provenance=provenance,
            margin=1 - rate[loser],
        )
        for winner in good[:1]
        for loser in bad[: config.max_pairs_per_prompt]
    ]
    return made


def _valid_tests(task: CodeTask, results: dict[str, tuple[bool, ...]]) -> list[int]:
    references = [results[solution] for solution in task.solutions if solution in results]
    if references:
        return [i for i in range(len(task.tests)) if all(passed[i] for passed in references)]
    return [i for i in range(len(task.tests)) if 2 * sum(passed[i] for passed in results.values()) > len(results)]
