import pytest
import torch
from transformers import Qwen2ForCausalLM, Qwen2MoeForCausalLM

from qwenops.model.architecture import model_config
from qwenops.model.sizes import SIZES, count_parameters

# Report, Table 1; exact counts from the published configs.
PUBLISHED = {
    "qwen2_0_5b": (494_032_768, 357_898_112),
    "qwen2_1_5b": (1_543_714_304, 1_310_340_608),
    "qwen2_7b": (7_615_616_512, 6_525_621_760),
    "qwen2_72b": (72_706_203_648, 70_214_787_072),
    "qwen2_57b_a14b": (57_408_658_944, 56_319_581_696),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size_has_the_published_number_of_parameters(name):
    size = SIZES[name]()
    kind = Qwen2MoeForCausalLM if size.experts else Qwen2ForCausalLM
    with torch.device("meta"):
        model = kind(model_config(size))
    built = sum(parameter.numel() for parameter in model.parameters())
    counted = count_parameters(size)
    assert (counted.total, counted.non_embedding) == PUBLISHED[name]
    assert built == counted.total


def test_active_parameters_of_57b_a14b_are_about_fourteen_billion():
    size = SIZES["qwen2_57b_a14b"]()
    active = count_parameters(size).active
    assert round(active / 1e9, 2) == 13.16
    # With both embeddings, as the name counts them.
    assert round((active + 2 * size.vocab_rows * size.hidden_size) / 1e9, 2) == 14.25
