"""Published inputs of the instruction stages, and a stage handle that writes to a temporary folder."""

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import torch
from pyarrow import parquet
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from qwenops.data.tokenizer.bpe import CHAT_TEMPLATE
from qwenops.model.checkpoints import save_checkpoint
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage

MakeStage = Callable[[str], Stage]


@pytest.fixture
def make_stage(tmp_path: Path) -> MakeStage:
    def make(node: str) -> Stage:
        out, scratch = tmp_path / node, tmp_path / f"{node}.scratch"
        out.mkdir()
        scratch.mkdir()
        return Stage(node, 7, RunContext(str(tmp_path), str(tmp_path), str(tmp_path)), out, scratch)

    return make


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "documents").mkdir()
    rows = [
        {
            "id": f"d{i}",
            "domain": "prose",
            "lang": "en",
            "license": "PD",
            "split": "heldout" if i % 9 == 0 else "train",
            "text": f"Chapter {'ABCDEFGHIJ'[i % 10]}\n\nThe river was wide and slow in the summer. The boat of the "
            f"miller lay in the reeds where the river bends. Nobody had seen the miller since the {i} of May.\n\nEnd.",
        }
        for i in range(40)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "documents" / "part-0.parquet")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
    )
    save_checkpoint(model, tokenizer, folder, 256, 0)
    return folder
