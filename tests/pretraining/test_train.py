import pytest
import torch
from tests.pretraining.corpus import EXTEND
from transformers import AutoModelForCausalLM

from qwenops.contracts.tokens import TokenShards
from qwenops.model.checkpoints import load_tokenizer
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage
from qwenops.pretraining.phases import Phase, Practice
from qwenops.pretraining.rows import RowSource
from qwenops.pretraining.train import tune_worker_threads


@pytest.mark.parametrize(("length", "tried"), [(4096, (2, 1024)), (128, (16, 128))])
def test_threads_are_chosen_on_a_few_short_rows(artifacts, pretrained, tmp_path, length, tried):
    source = RowSource(
        TokenShards(artifacts["tokens"]),
        load_tokenizer(artifacts["tokenizer"]),
        (Phase(length=length, steps=2),),
        Practice(needle_share=0.5),
        batch_tokens=8192,
        seed=3,
    )
    model, shapes = AutoModelForCausalLM.from_pretrained(pretrained.path), set()
    model.get_input_embeddings().register_forward_hook(lambda _, given, __: shapes.add(tuple(given[0].shape)))
    stage = Stage("extend", 3, RunContext(store="", events="", cache=""), tmp_path, tmp_path)
    before = torch.get_num_threads()
    try:
        assert tune_worker_threads(model, source, EXTEND.training, stage) == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert shapes == {tried}
