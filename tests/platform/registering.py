"""Registrations by processes of their own that meet before each one: what the test of the alias starts."""

import multiprocessing
from collections.abc import Mapping, Sequence

from qwenops.platform.mlflow import registry

SCORE = "online.pass_rate"


def register(uri: str, name: str, score: float, *, turn_seconds: float = registry.TURN_SECONDS) -> str:
    """Register a version that may follow a champion of at most its own score; returns its alias."""
    figures = {SCORE: score}
    with registry.registration_turn(
        uri, name, "s3://models/chat", run_id="", figures=figures, tags={}, turn_seconds=turn_seconds
    ) as turn:
        better = turn.champion is None or score >= turn.champion.figures[SCORE]
        return turn.settle(passed=better, description=f"{score}")


def compete(uri: str, trials: Sequence[Mapping[str, Sequence[float]]], competitors: int) -> dict[str, list[str]]:
    """For each name, register its scores at the same moment, one a process; returns the aliases they got."""
    # Forks of a process that has imported this and knows no database yet, in which an interpreter need not start anew.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qwenops.platform.mlflow.registry"])
    barrier, answers = context.Barrier(competitors), context.Queue()
    workers = [context.Process(target=_work, args=(uri, trials, k, barrier, answers)) for k in range(competitors)]
    for worker in workers:
        worker.start()
    found: dict[str, list[str]] = {name: [""] * competitors for trial in trials for name in trial}
    for _ in range(len(found) * competitors):
        name, place, alias = answers.get(timeout=1200)
        found[name][place] = alias
    for worker in workers:
        worker.join()
    return found


def _work(uri, trials, place, barrier, answers) -> None:
    for trial in trials:
        for name, scores in trial.items():
            barrier.wait()
            try:
                answers.put((name, place, register(uri, name, scores[place])))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                answers.put((name, place, f"{type(error).__name__}: {error}"))
