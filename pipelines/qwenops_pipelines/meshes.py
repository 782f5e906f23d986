"""Whether a recipe fits a placement: asked when a plan is made, a pipeline compiled or a run started.

Pre-training, extension and upcycling divide their models; other stages that train hold weights whole on every worker.
"""

from qwenops.errors import RecipeError
from qwenops.model.sizes import Size
from qwenops.recipe.mesh import Divisible, ParallelConfig, check_division
from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops.training.config import check_attention
from qwenops_pipelines.engines import check_engines
from qwenops_pipelines.limits import check_form
from qwenops_pipelines.workloads import Workload, workloads

_AREA = "pretraining"


def workers_of(placement: Placement) -> int:
    """Ray Train workers of a training stage at `placement`, at least the one that is the stage itself."""
    cluster = placement.cluster(_AREA)
    return max(cluster.num_workers if cluster else placement.num_workers, 1)


def mesh_of(placement: Placement) -> ParallelConfig:
    """The mesh of the stages that divide a model at `placement`."""
    cluster = placement.cluster(_AREA)
    return cluster.mesh if cluster else placement.mesh


def divisible(size: Size, length: int) -> Divisible:
    """What a mesh divides of a model of `size` that reads rows of `length`."""
    experts = size.experts
    width, count = (experts.shared_width, experts.num_experts) if experts else (size.intermediate_size, 0)
    return Divisible(size.num_query_heads, size.num_kv_heads, width, count, length)


def check_fit(recipe: Recipe, placement: Placement) -> None:
    """Check the mesh of `placement` against its own GPUs, and against every model and step that `recipe` divides.

    Raises:
        RecipeError: there are fewer GPUs than workers, the mesh does not have one place per worker, it does not divide
            heads, width, experts or rows, it divides rows whose documents meet their own keys alone, a step has fewer
            rows than there are workers that share them, Kubeflow's form cannot hold the recipe, or an engine cannot be
            opened there.
    """
    check_engines(recipe, placement)
    if placement.artifact_root:
        check_form(recipe)
    workers = workers_of(placement)
    _check_accelerators(placement, workers)
    divided = [workload for workload in workloads(recipe) if workload.sharded]
    for workload in divided:
        mesh = check_division(mesh_of(placement), divisible(workload.size, workload.length), workers)
        check_attention(workload.config.attention, mesh.context)
    _check_rows(divided, mesh_of(placement).resolved(workers))


def _check_accelerators(placement: Placement, workers: int) -> None:
    cluster = placement.cluster(_AREA)
    if cluster and cluster.has_accelerators:
        groups = cluster.workers.values()
        gpus = cluster.head.resources.num_accelerators
        gpus += sum((group.max_replicas or group.replicas) * group.resources.num_accelerators for group in groups)
        if gpus < workers:
            raise RecipeError(
                f"placement {placement.name} has fewer GPUs than workers",
                expected=f"{workers} GPUs, one per worker",
                found=gpus,
                action="lower num_workers, or raise num_accelerators or the replicas of its worker groups",
            )


def _check_rows(divided: list[Workload], mesh: ParallelConfig) -> None:
    sharing, together = mesh.replicate * mesh.shard, mesh.context * mesh.tensor
    # Of a node with several loops or lengths, the one that asks most.
    short = {work.stage.split(".")[0]: work for work in sorted(divided, key=_length) if work.rows < sharing}
    if short:
        needed = [f"{node}.training.batch_tokens {sharing * work.length}" for node, work in short.items()]
        most = min(work.rows for work in short.values())
        raise RecipeError(
            f"{', '.join(short)}: fewer rows in a step than the placement has workers",
            expected=f"at least {sharing} rows in a step: {', '.join(needed)}",
            found=", ".join(f"{work.rows} of {work.length} tokens in {node}" for node, work in short.items()),
            action=f"raise these, take a placement with at most {most * together} workers, or give its mesh a context "
            "or tensor dimension",
        )


def _length(work: Workload) -> int:
    return work.length
