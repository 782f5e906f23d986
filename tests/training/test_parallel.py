"""Two workers under gloo, forked: they must train as one process does."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from tests.training.counting import number_rows, tiny_model

from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.objective import language_modelling, mean_loss
from qwenops.training.parallel import shard, whole_state

CONFIG = TrainingConfig(
    steps=5,
    batch_tokens=96,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=1,
    schedule="wsd",
    precision="fp32",
)


def _batches(rank, size):
    def from_step(start):
        for step in range(start, CONFIG.steps):
            yield text_batch(number_rows(step, rows=5)[rank::size])

    return from_step


def _work(rank, folder, sharding, tied, config):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = tiny_model(tied=tied)
    if sharding == "sharded":
        shard(model)
        # An evaluation before training must not leave gathered weights to the optimiser.
        mean_loss(model, [text_batch(number_rows(99))])
    result = fit(model, language_modelling, _batches(rank, 2), config)
    state = whole_state(model)
    if rank == 0:
        torch.save({"state": state, "curve": result.curve}, folder / "out.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("sharding", "tied", "optimizer"),
    [("whole", True, "muon"), ("sharded", True, "adamw"), ("sharded", False, "adamw"), ("sharded", True, "muon")],
)
def test_two_workers_with_unequal_rows_train_as_one_process_does(tmp_path, sharding, tied, optimizer):
    config = CONFIG.model_copy(update={"optimizer": optimizer})
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_work, args=(rank, tmp_path, sharding, tied, config)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(50)
    assert [worker.exitcode for worker in workers] == [0, 0]
    alone = tiny_model(tied=tied)
    expected = fit(alone, language_modelling, _batches(0, 1), config)
    found = torch.load(tmp_path / "out.pt")
    assert found["curve"] == pytest.approx(expected.curve, rel=1e-4)
    for name, value in alone.state_dict().items():
        assert torch.allclose(found["state"][name], value, atol=2e-3), name


def _resume(rank, folder, optimizer):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/again", rank=rank, world_size=2)
    config = CONFIG.model_copy(update={"checkpoint_every_steps": 2, "optimizer": optimizer})
    curves = []
    for model in (tiny_model(), tiny_model(seed=1)):
        # The second model starts from other weights, and takes over the state the first left at step 4.
        shard(model)
        curves.append(fit(model, language_modelling, _batches(rank, 2), config, state_dir=folder / "state").curve)
    if rank == 0:
        torch.save(curves, folder / "curves.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_sharded_training_resumes_from_the_last_state(tmp_path, optimizer):
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_resume, args=(rank, tmp_path, optimizer)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(50)
    assert [worker.exitcode for worker in workers] == [0, 0]
    whole, resumed = torch.load(tmp_path / "curves.pt")
    assert resumed == whole
