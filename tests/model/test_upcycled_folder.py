import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.delivery.artifacts import make_tokenizer
from tests.model.small import TRAINED, logits, random_ids, small_model
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from qwenops.contracts.checkpoint import read_facts
from qwenops.errors import ContractError, PlatformError, RecipeError
from qwenops.model.architecture import model_config
from qwenops.model.checkpoints import load_model, save_checkpoint
from qwenops.model.sizes import Experts, Size
from qwenops.model.upcycled_folder import upcycle_folder
from qwenops.model.upcycling import Upcycling, upcycle
from qwenops.model.weight_files import INDEX, WeightReader
from qwenops_pipelines.cli import main

LAYOUT = Experts(num_experts=8, num_active=2, expert_width=24, shared_width=96)
MIB = 1 << 20


@pytest.fixture
def dense(tmp_path):
    """A checkpoint in several weight files."""
    folder = tmp_path / "dense"
    model = small_model(tied=False)
    save_checkpoint(model, make_tokenizer(tmp_path / "tokenizer"), folder, TRAINED, 1000)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    for path in (tmp_path / "parts").glob("*.safetensors*"):
        path.replace(folder / path.name)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def convert(dense, out, how=None, **options):
    return upcycle_folder(dense, out, how or Upcycling(LAYOUT, seed=5), on_layer=lambda *_: None, **options)


@pytest.mark.parametrize("granularity", ["neuron", "weight"])
def test_folder_holds_the_weights_of_upcycling_in_memory(tmp_path, dense, granularity):
    how = Upcycling(LAYOUT, granularity=granularity, seed=5)
    layers = []
    done = upcycle_folder(dense, tmp_path / "moe", how, shard_bytes=50_000, on_layer=lambda *at: layers.append(at))
    expected = upcycle(load_model(dense), how).eval()
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "moe").eval()
    assert all(torch.equal(expected.state_dict()[name], tensor) for name, tensor in stock.state_dict().items())
    assert torch.equal(logits(stock, random_ids(1, 20)), logits(expected, random_ids(1, 20)))
    assert done.parameters == sum(parameter.numel() for parameter in stock.parameters())
    assert (done.copies, layers) == (2, [(1, 2), (2, 2)])
    names = set(json.loads((tmp_path / "moe" / INDEX).read_text())["weight_map"])
    assert {f"model.layers.1.mlp.experts.{e}.down_proj.weight" for e in range(8)} <= names
    config = json.loads((tmp_path / "moe/config.json").read_text())
    assert (config["architectures"], config["rope_theta"], config["torch_dtype"]) == (
        ["Qwen2MoeForCausalLM"],
        1e4,
        "float32",
    )
    facts = read_facts(tmp_path / "moe")
    assert (facts.parent, facts.tokens_seen) == ("dense", 1000)


def test_command_writes_a_mixture_that_computes_what_the_dense_model_does(tmp_path, dense, capsys):
    layout = [
        "--experts",
        "8",
        "--active",
        "2",
        "--expert-width",
        "24",
        "--shared-width",
        "96",
        "--start",
        "function_preserving",
    ]
    with pytest.raises(SystemExit, match="0"):
        main(["upcycle", str(dense), str(tmp_path / "moe"), *layout])
    assert "layer 2 of 2" in capsys.readouterr().out
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "moe").eval()
    torch.testing.assert_close(logits(stock, random_ids(1, 20)), logits(load_model(dense), random_ids(1, 20)))


_MEASURED = """
import resource, sys
from pathlib import Path
from qwenops.model.sizes import Experts
from qwenops.model.upcycled_folder import upcycle_folder
from qwenops.model.upcycling import Upcycling
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, layout = peak(), Experts(num_experts=24, num_active=4, expert_width=512, shared_width=1024)
how = Upcycling(layout, seed=1)
upcycle_folder(Path(sys.argv[1]), Path(sys.argv[2]), how, shard_bytes=8 << 20, on_layer=lambda *_: None)
print(peak() - before)
"""


def test_upcycling_needs_a_fraction_of_the_memory_of_its_result(tmp_path):
    size = Size(
        hidden_size=256,
        num_layers=4,
        num_query_heads=4,
        num_kv_heads=2,
        intermediate_size=1024,
        vocab_rows=300,
        tied_embeddings=True,
    )
    Qwen2ForCausalLM._from_config(model_config(size)).save_pretrained(tmp_path / "dense", max_shard_size="4MB")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(tmp_path / "dense"), str(tmp_path / "moe")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    written = sum(path.stat().st_size for path in (tmp_path / "moe").glob("*.safetensors"))
    assert written > 150 * MIB
    # The source's files are mapped and count as resident, 15 MiB; beside them a file, a layer and an expert.
    assert int(done.stdout) * 1024 < written / 3


def test_broken_weight_file_is_refused_by_name(tmp_path, dense):
    path = sorted(dense.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ContractError, match=path.name):
        convert(dense, tmp_path / "moe")
    assert [entry.name for entry in tmp_path.iterdir() if "moe" in entry.name] == []


def test_missing_weight_file_is_refused_by_name(tmp_path, dense):
    path = sorted(dense.glob("*.safetensors"))[1]
    path.unlink()
    with pytest.raises(ContractError, match=path.name):
        convert(dense, tmp_path / "moe")


def test_index_with_a_tensor_its_file_lacks_is_refused(dense):
    path = sorted(dense.glob("*.safetensors"))[0]
    tensors = load_file(path)
    dropped = sorted(tensors)[0]
    tensors.pop(dropped)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ContractError, match=dropped):
        WeightReader(dense)


def test_mixture_and_empty_folder_and_existing_output_are_refused(tmp_path, dense):
    convert(dense, tmp_path / "moe")
    with pytest.raises(RecipeError, match="qwen2_moe"):
        convert(tmp_path / "moe", tmp_path / "again")
    with pytest.raises(RecipeError, match=r"config\.json"):
        convert(tmp_path, tmp_path / "again")
    with pytest.raises(RecipeError, match="exists already"):
        convert(dense, tmp_path / "moe")


def test_result_larger_than_the_disk_is_refused_before_writing(tmp_path, dense, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(PlatformError, match="room"):
        convert(dense, tmp_path / "moe")
    assert not (tmp_path / "moe").exists()
