"""Read and write the weights of a model folder one tensor at a time, so that no model need fit in memory.

safetensors maps its files: a tensor is read when it is used. Writing needs a whole file's tensors at once, so the size
of a file bounds the memory.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from qwenops.errors import ContractError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class WeightReader(Mapping[str, torch.Tensor]):
    """The tensors of a folder by name, read when asked for.

    Args:
        folder: A model folder with one weight file, or several and their index.

    Raises:
        ContractError: there are no weights, a file is broken, or a file of the index is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, _locate(folder)
        held = {file: set(_open(folder / file).keys()) for file in set(self._files.values())}
        missing = sorted(name for name, file in self._files.items() if name not in held[file])
        if missing:
            raise ContractError(
                f"{folder / INDEX} names tensors that its files do not hold",
                expected=f"{missing[0]} in {self._files[missing[0]]}",
                found=f"{len(missing)} tensors missing",
                action="copy or download the folder again",
            )

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._files:
            raise ContractError(
                f"{self._folder} lacks a tensor",
                expected=name,
                found=f"{len(self._files)} others",
                action="give the folder of a complete Qwen2 model",
            )
        return _open(self._folder / self._files[name]).get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class WeightWriter:
    """Collects tensors and writes a file whenever `shard_bytes` are reached.

    Args:
        folder: Where to write; must exist.
        shard_bytes: Size of a file, exceeded only by a single larger tensor.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._waiting: dict[str, torch.Tensor] = {}
        self._waiting_bytes = 0
        self._shards: list[list[str]] = []
        self.total_bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take a tensor; it is on disk after `close` at the latest."""
        if self._waiting and self._waiting_bytes + tensor.nbytes > self._limit:
            self._flush()
        self._waiting[name] = tensor.contiguous()
        self._waiting_bytes += tensor.nbytes
        self.total_bytes += tensor.nbytes

    def close(self) -> None:
        """Write what is left and the index, under the names that transformers looks for."""
        self._flush()
        count = len(self._shards)
        names = [SINGLE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
        for place, name in enumerate(names):
            (self._folder / _draft(place)).replace(self._folder / name)
        if count > 1:
            weight_map = {tensor: name for name, held in zip(names, self._shards, strict=True) for tensor in held}
            index = {"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map}
            (self._folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")

    def _flush(self) -> None:
        # transformers reads the format from the file's own metadata.
        save_file(self._waiting, self._folder / _draft(len(self._shards)), metadata={"format": "pt"})
        self._shards.append(list(self._waiting))
        self._waiting, self._waiting_bytes = {}, 0


def _draft(place: int) -> str:
    return f"shard-{place:05d}.draft"


def _locate(folder: Path) -> dict[str, str]:
    """Tensor name to file name."""
    if (folder / INDEX).is_file():
        try:
            return dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise ContractError(
                f"unreadable {folder / INDEX}",
                expected="a weight_map from tensor to file",
                found=error,
                action="copy or download the folder again",
            ) from None
    return dict.fromkeys(_open(folder / SINGLE).keys(), SINGLE)


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ContractError(
            f"unreadable weights: {path}",
            expected="a complete safetensors file",
            found=error,
            action="copy or download the folder again",
        ) from None
