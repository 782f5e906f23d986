"""The benchmarks: method, shots and metric of each, as the report's tables have them.

LL compares the log-likelihood of the options, GEN generates and extracts. Shots are those of the report's section 5.1
for base models. How the chat model was prompted is not published: house choice, it sees LL prompts as plain text with
the same shots, and GEN prompts as one user message without shots.
"""

from dataclasses import dataclass
from typing import Literal

Method = Literal["LL", "GEN"]
Normalise = Literal["none", "bytes"]


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes:
        name: Name of its evaluation set and of its metrics.
        method: LL or GEN.
        shots: Worked examples in front of the question.
        metric: What its score is called.
        normalise: Divide an option's log-likelihood by its length in UTF-8 bytes, or not.
        stops: Texts that end a plain-text answer; a chat model ends its turn instead.
        answer_tokens: Longest answer this benchmark needs; the config's `max_new_tokens` may lower it.
    """

    name: str
    method: Method
    shots: int
    metric: str
    normalise: Normalise = "none"
    stops: tuple[str, ...] = ()
    answer_tokens: int = 1024


_NEXT_FUNCTION = ("\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\n#")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("mmlu", "LL", 5, "accuracy"),
        Task("ceval", "LL", 5, "accuracy"),
        Task("cmmlu", "LL", 5, "accuracy"),
        Task("mmmlu", "LL", 5, "accuracy"),
        Task("gsm8k", "GEN", 5, "exact_match", stops=("\nQuestion:", "\n\n")),
        Task("mgsm", "GEN", 8, "exact_match", stops=("\nQuestion:", "\n\n")),
        Task("math", "GEN", 4, "exact_match", stops=("\nProblem:",)),
        Task("humaneval", "GEN", 0, "pass_at_1", stops=_NEXT_FUNCTION),
        Task("mbpp", "GEN", 0, "pass_at_1", stops=("[DONE]",)),
        # BBH's three shots are part of each task's published prompt.
        Task("bbh", "GEN", 0, "exact_match", stops=("\nQ:", "\n\n")),
        Task("ifeval", "GEN", 0, "strict_prompt"),
        Task("continuation", "LL", 0, "accuracy", normalise="bytes"),
        Task("verifiable", "GEN", 4, "exact_match", stops=("\n\n",), answer_tokens=16),
    )
}
