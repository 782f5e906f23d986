"""`qwenops plan`: what a recipe asks for at a placement, derived from its numbers; starts nothing.

Tokens per second come from `devices.py` where a rate of that kind of device was measured, else from the device's peak
and an assumed utilisation, and each line says which. Memory comes from `qwenops.training.footprint`, which the tests
hold against what a loop really allocates, and on a CPU against the resident memory that it adds to its process.
"""

from dataclasses import dataclass

from qwenops.model.sizes import count_parameters
from qwenops.recipe.mesh import ParallelConfig
from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops.training.footprint import Footprint, footprint
from qwenops_pipelines.devices import PROCESS_BYTES, Device, device_of
from qwenops_pipelines.meshes import check_fit, mesh_of, workers_of
from qwenops_pipelines.workloads import Workload, workloads

_DAY, _HOUR = 86_400, 3600


@dataclass(frozen=True)
class StagePlan:
    """Costs of one training loop at one placement.

    Attributes:
        workload: The loop.
        mesh: How the workers share it, in words.
        memory: Bytes of one worker.
        fits: Whether its peak fits the device, as far as its memory is known.
        tokens_per_second: Over all workers.
        rate_source: Where that rate comes from.
        seconds: Wall time; 0 where the steps follow from the data.
        device_hours: Devices times hours.
    """

    workload: Workload
    mesh: str
    memory: Footprint
    fits: bool
    tokens_per_second: float
    rate_source: str
    seconds: float
    device_hours: float


def plan_stages(recipe: Recipe, placement: Placement) -> list[StagePlan]:
    """The costs of every training loop of `recipe`.

    Raises:
        RecipeError: a step has fewer rows than there are workers that share them, or the mesh does not fit.
    """
    check_fit(recipe, placement)
    device, workers = device_of(placement), workers_of(placement)
    mesh = mesh_of(placement).resolved(workers)
    return [_plan(workload, device, mesh if workload.sharded else _whole(workers)) for workload in workloads(recipe)]


def describe(recipe: Recipe, placement: Placement) -> str:
    """The plan as text: the model, then memory, time and money of every training loop."""
    size, device = recipe.pretrain.size, device_of(placement)
    count = count_parameters(size)
    stages = plan_stages(recipe, placement)
    lines = [
        f"recipe      {recipe.name} at {placement.name}: {workers_of(placement)} x {device.name}",
        f"parameters  {count.total:,} ({count.non_embedding:,} without embeddings, {count.active:,} active per token)",
        "",
        "memory of one worker, GB",
        f"{'stage':<20} {'weights':>8} {'gradients':>9} {'optimiser':>9} {'activations':>11} {'logits':>8} {'heap':>6}"
        f" {'peak':>8}  mesh",
    ]
    lines += [_memory_line(stage) for stage in stages]
    lines += [_beside(device)]
    lines += ["", f"{'stage':<20} {'tokens':>16} {'row':>7} {'FLOPs':>9} {'tokens/s':>12} {'device-h':>9} {'days':>7}"]
    lines += [_time_line(stage) for stage in stages]
    hours, seconds = sum(s.device_hours for s in stages), sum(s.seconds for s in stages)
    lines += ["", f"together    {hours:,.2f} device-hours, {seconds / _DAY:,.3f} days one after the other"]
    lines.append(f"money       {_money(hours, placement)}")
    lines += [f"rate        {source}" for source in sorted({stage.rate_source for stage in stages})]
    lines += [f"note        {s.workload.stage}: {s.workload.note}" for s in stages if s.workload.note]
    return "\n".join(lines)


def _beside(device: Device) -> str:
    if device.kind == "gpu":
        return "beside it   the CUDA context and what the allocator keeps in reserve, not measured"
    return f"beside it   {PROCESS_BYTES / 1e9:.1f} GB of each training process: interpreter and libraries, measured"


def _money(hours: float, placement: Placement) -> str:
    if placement.prices is None:
        return "unknown: the placement names no prices"
    price, currency = placement.prices.accelerator_hour, placement.prices.currency
    return f"{hours * price:,.2f} {currency} at {price:g} per device-hour"


def _whole(workers: int) -> ParallelConfig:
    """Every worker with rows of its own and whole weights."""
    return ParallelConfig(replicate=workers, shard=1)


def _plan(workload: Workload, device: Device, mesh: ParallelConfig) -> StagePlan:
    sharing = mesh.replicate * mesh.shard
    workers = sharing * mesh.context * mesh.tensor
    rows = -(-workload.rows // sharing)
    if workload.config.micro_batch_tokens:
        rows = min(rows, max(workload.config.micro_batch_tokens // workload.length, 1))
    # A stretch of a row costs what a shorter row does; heads and feed-forward width are counted whole.
    shards = mesh.shard * mesh.context * mesh.tensor
    config = workload.config if device.has_bf16 else workload.config.model_copy(update={"precision": "fp32"})
    length = workload.length // mesh.context
    memory = footprint(workload.size, config, length, rows=rows, shards=shards, device=device.kind)
    rate = device.flops_per_second * workers * workload.length * workload.rows * workload.steps
    per_second = rate / workload.flops if workload.flops else 0.0
    seconds = workload.tokens / per_second if per_second else 0.0
    return StagePlan(
        workload=workload,
        mesh=_mesh(workload, mesh, workers),
        memory=memory,
        fits=memory.peak <= device.memory_bytes,
        tokens_per_second=per_second,
        rate_source=device.source,
        seconds=seconds,
        device_hours=seconds * workers / _HOUR,
    )


def _mesh(workload: Workload, mesh: ParallelConfig, workers: int) -> str:
    if workers == 1:
        return "one worker"
    if not workload.sharded:
        return f"{workers} data-parallel, weights whole on each"
    if mesh.shard == workers:
        return f"{workers} data-parallel, weights divided (FSDP2)"
    sizes = {"replicate": mesh.replicate, "shard": mesh.shard, "context": mesh.context, "tensor": mesh.tensor}
    return " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)


def _memory_line(stage: StagePlan) -> str:
    memory = stage.memory
    parts = (
        memory.weights,
        memory.gradients,
        memory.optimizer,
        memory.activations,
        memory.logits,
        memory.heap,
        memory.peak,
    )
    cells = [f"{part / 1e9:>{width}.3f}" for part, width in zip(parts, (8, 9, 9, 11, 8, 6, 8), strict=True)]
    return f"{stage.workload.stage:<20} {' '.join(cells)}  {stage.mesh}" + ("" if stage.fits else "; DOES NOT FIT")


def _time_line(stage: StagePlan) -> str:
    work = stage.workload
    if not work.steps:
        return f"{work.stage:<20} {'from the data':>16} {work.length:>7,}"
    return (
        f"{work.stage:<20} {work.tokens:>16,} {work.length:>7,} {work.flops:>9.2e} {stage.tokens_per_second:>12,.0f}"
        f" {stage.device_hours:>9.2f} {stage.seconds / _DAY:>7.3f}"
    )
