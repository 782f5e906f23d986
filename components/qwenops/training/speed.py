"""How fast a training loop is, beside what its GPUs could do: what goes to MLflow at every step.

MFU, model FLOPs utilisation: the FLOPs that the model needs (`footprint.flops_per_token`, what is recomputed not
counted) over the dense bf16 peak of all workers. Only a GPU whose peak is known has one.
"""

import statistics

import torch

from qwenops.model.sizes import Size
from qwenops.training.fit import FitResult, StepReport
from qwenops.training.footprint import PEAKS, flops_per_token
from qwenops.training.parallel import worker_rank


class ThroughputMeter:
    """Turns the reports of a loop's steps into curves and, at its end, metrics.

    Args:
        size: Dimensions of the model.
        peak: FLOP/s of one worker's device; by default those of this worker's, None where they are not known.
    """

    def __init__(self, size: Size, peak: float | None = None) -> None:
        self._size, self._steps = size, list[dict[str, float]]()
        self._on_gpu = torch.cuda.is_available()
        self._peak = peak or (PEAKS.get(torch.cuda.get_device_name()) if self._on_gpu else None)

    def step(self, report: StepReport, length: int) -> dict[str, float]:
        """Figures of one step, whose rows have `length` tokens, over all workers."""
        workers = worker_rank().world_size
        rate = report.tokens / report.seconds
        figures = {"tokens_per_second": rate}
        if self._peak:
            for name, head in (("mfu", True), ("mfu.without_embeddings", False)):
                figures[name] = rate * flops_per_token(self._size, length, head=head) / (self._peak * workers)
        if workers > 1:
            figures["worker_wait_seconds"] = report.waited_seconds
        if self._on_gpu:
            figures["gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        self._steps.append(figures)
        return figures

    def metrics(self, result: FitResult) -> dict[str, float]:
        """The loop's tokens per second, and the other figures' medians over the steps after the first, a warm-up."""
        measured = self._steps[1:] or self._steps
        names = measured[0].keys() if measured else ()
        medians = {name: statistics.median(figures[name] for figures in measured) for name in names}
        return medians | {"tokens_per_second": result.tokens_per_second}
