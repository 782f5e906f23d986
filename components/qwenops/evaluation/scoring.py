"""Scorers for generated answers: numbers, MATH answers, labels, programs.

Each follows its benchmark's published definition; the Qwen2 report restates none of them. A scorer takes the raw
response and returns a score in [0, 1].
"""

import ast
import builtins
import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from qwenops.errors import StageError
from qwenops.evaluation.answers import final_math, final_number, same_label, same_number
from qwenops.evaluation.ifeval import follows_all
from qwenops.evaluation.mathematics import same_math
from qwenops.platform.sandbox.judging import Program
from qwenops.tasks.code_answers import defined_names, find_program, parses
from qwenops.tasks.evalitem import EvalItem
from qwenops.tasks.verifiable import verify

JudgeProgram = Callable[[Program], bool]
"""Judges a program by its tests in a sandbox; True when all pass."""


def score_responses(pairs: Sequence[tuple[EvalItem, str]], judge: JudgeProgram | None) -> list[float]:
    """Score responses in their order; programs several at a time, the rest in the calling thread (see `same_math`)."""
    if not any(item.scorer == "python" for item, _ in pairs):
        return [score_response(item, response, judge) for item, response in pairs]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda pair: score_response(pair[0], pair[1], judge), pairs))


def score_response(item: EvalItem, response: str, judge: JudgeProgram | None) -> float:
    """Score one generated response to `item`.

    Args:
        item: The item; its `scorer` chooses the rule.
        response: The model's raw output.
        judge: Judges a program by its tests in a sandbox; only items scored so need one.

    Raises:
        StageError: the item is not answered by generation.
    """
    if item.scorer == "number":
        return float(same_number(final_number(response, item.lang), item.gold))
    if item.scorer == "math":
        return float(same_math(final_math(response), item.gold))
    if item.scorer == "exact":
        return float(same_label(response, item.gold, item.prompt))
    if item.scorer == "python" and judge is not None:
        return float(judge(program(item, response)))
    if item.scorer == "ifeval":
        return float(follows_all(item.facts["checks"], item.facts["prompt"], response))
    if item.scorer == "verifier":
        return float(verify(item.facts["verifier"], response))
    raise StageError(f"{item.id} is not scored by generation", expected="a generation scorer", found=item.scorer)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of pass@k: 1 - C(n - c, k) / C(n, k) with n samples of which c are correct.

    Raises:
        StageError: fewer samples than k, for which no unbiased estimate exists.
    """
    if k > samples:
        raise StageError(f"pass@{k} of {samples} samples", expected=f"at least {k} samples", found=samples)
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def program(item: EvalItem, response: str) -> Program:
    """The program of a code response with the item's tests.

    The tests take from the program only what the item asks for; helpers of the prompt stay the prompt's own on their
    side, so that a response cannot answer for them.
    """
    prefix = item.facts["prefix"]
    names = tuple(sorted(item.facts.get("names") or _asked_names(prefix, item.facts["tests"])))
    return Program(find_program(response, names, prefix), (item.facts["tests"],), names, prefix * parses(prefix))


def _asked_names(prefix: str, tests: str) -> set[str]:
    """What a program must define: the function that the prefix begins last, else every name the tests do not have."""
    if prefix:
        return set(re.findall(r"^(?:async )?def (\w+)", prefix, re.MULTILINE)[-1:])
    used = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    return used - defined_names(tests) - set(dir(builtins))
