"""Workers of one machine: forked, one thread each, in one gloo group."""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SECONDS = 900


def on_workers(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work(rank, size, *arguments)` returns on rank 0 of `size` workers, through a file."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        workers = [fork.Process(target=_join, args=(rank, size, Path(folder), work, arguments)) for rank in range(size)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(_SECONDS)
        assert [worker.exitcode for worker in workers] == [0] * size
        return torch.load(Path(folder) / "out.pt")


def _join(rank: int, size: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    found = work(rank, size, *arguments)
    if rank == 0:
        torch.save(found, folder / "out.pt")
    dist.barrier()
    dist.destroy_process_group()
