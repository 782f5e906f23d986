"""What a stage's `run` is given beside its config and inputs, and where it reports to."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenops.contracts.metrics import check_metric
from qwenops.errors import ContractError
from qwenops.platform import logs
from qwenops.platform.context import RunContext
from qwenops.platform.observe.live import LIVE, Live
from qwenops.platform.observe.progress import Progress
from qwenops.platform.secrets import redact
from qwenops.platform.stage.curves import add_point


@dataclass
class Stage:
    """What a stage's `run` is given beside its config and inputs, and where it reports to.

    Attributes:
        node: DAG node name; differs from the stage's folder only where a stage runs twice.
        seed: The recipe's seed.
        context: Where this runs.
        out: Folder to write the outputs into; published when `run` returns.
        scratch: Folder that survives a kill; checkpoints to resume from live here. Removed on success.
    """

    node: str
    seed: int
    context: RunContext
    out: Path
    scratch: Path
    records: int = 0
    counts: dict[str, Any] = field(default_factory=dict[str, Any])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    warnings: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._broken = set[str]()
        self._live = Live(self.scratch / LIVE if self.context.metrics_port else None)

    def metric(self, name: str, value: float) -> None:
        """Record one figure of this stage; `name` must be listed in `contracts.metrics`.

        What is no finite number is no measurement: it is left out with a warning, and no rule of the gate passes on it.
        """
        check_metric(name)
        if math.isfinite(value):
            self.metrics[name] = float(value)
        else:
            self.warn(f"{name} is {value}, no finite number, and is left out")

    def curve(self, name: str, step: int, value: float) -> None:
        """Record one point of a curve (loss over steps, say); goes to `curves.jsonl`, MLflow and the report.

        A stage that is killed and goes on draws on. A point that is no finite number is left out, with a warning at the
        first one of a curve; workers other than rank 0 draw none.
        """
        if math.isfinite(value):
            if not logs.rank():
                add_point(self.scratch, name, step, value)
        elif name not in self._broken:
            self._broken.add(name)
            self.warn(f"the curve {name} is {value} at step {step}; points that are no finite number are left out")
        self._live.point(name, step, value)
        logs.at_step(step)

    def count(self, *, read: int, kept: int, dropped: Mapping[str, int]) -> None:
        """Account for every record: `kept + sum(dropped) == read`.

        Raises:
            ContractError: the numbers do not add up.
        """
        if kept + sum(dropped.values()) != read:
            raise ContractError(
                f"{self.node} lost records",
                expected=f"kept + dropped == read == {read}",
                found=f"{kept} + {dict(dropped)}",
                action="report this; the stage dropped a record without a reason",
            )
        self.counts = {"read": read, "kept": kept, "dropped": dict(dropped)}
        self.records = kept

    def warn(self, sentence: str) -> None:
        """Add a sentence to the run record's warnings and print it."""
        sentence = redact(sentence)
        self.warnings.append(sentence)
        logs.event(sentence, level=logging.WARNING)
        if not logs.in_pod(self.context):
            print(f"[{self.node}] warning: {sentence}", flush=True)

    def progress(self, total: int, unit: str) -> Progress:
        """A progress display over `total` units; `advance` it, close it (or use it as a context manager)."""

        def watch(done: int, total: int, rate: float, note: str) -> None:
            self._live.rate(unit, rate)
            logs.event("progress", done=done, total=total, unit=unit, per_second=round(rate, 3), note=note)

        plain = not logs.in_pod(self.context)
        return Progress(self.node, total, unit, bar=self.context.show_bar == "yes", plain=plain, watch=watch)
