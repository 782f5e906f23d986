"""The in-process engine says what transformers' own generation says, and draws from the nucleus."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenops.errors import StageError
from qwenops.generation.chat import render
from qwenops.generation.engine import Sampling
from qwenops.generation.in_process import InProcessEngine, sample_next_tokens
from qwenops.model.modes import long_context_mode

PROMPTS = [[{"role": "user", "content": text}] for text in ("Reverse: 381752", "hi", "Sort: 1", "a" * 40)]


def test_greedy_generation_of_a_mixed_batch_equals_transformers_one_by_one(model, tokenizer):
    found = InProcessEngine(model, tokenizer).generate(PROMPTS, Sampling(max_new_tokens=10))
    stops = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    for prompt, group in zip(PROMPTS, found, strict=True):
        ids = tokenizer(render(prompt), return_tensors="pt", add_special_tokens=False)["input_ids"]
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[1],
        )
        drawn = expected[0, ids.shape[1] :].tolist()
        assert [(sample.text, sample.token_ids) for sample in group] == [
            (tokenizer.decode(drawn, skip_special_tokens=True), tuple(drawn))
        ]
        assert group[0].is_whole == (drawn[-1] in stops)


def test_small_batches_give_the_same_greedy_answers_as_one_batch(model, tokenizer):
    sampling = Sampling(max_new_tokens=8)
    whole = InProcessEngine(model, tokenizer).generate(PROMPTS, sampling)
    assert InProcessEngine(model, tokenizer, batch_tokens=1).generate(PROMPTS, sampling) == whole


def test_sampling_is_repeatable_and_follows_its_seed(model, tokenizer):
    engine = InProcessEngine(model, tokenizer)
    first = engine.generate(PROMPTS, Sampling(temperature=1.0, n=3, max_new_tokens=6, seed=1))
    assert first == engine.generate(PROMPTS, Sampling(temperature=1.0, n=3, max_new_tokens=6, seed=1))
    assert first != engine.generate(PROMPTS, Sampling(temperature=1.0, n=3, max_new_tokens=6, seed=2))
    assert [len(group) for group in first] == [3] * len(PROMPTS)


def test_rows_that_end_early_stop_there_while_the_others_go_on(tokenizer):
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    model = Qwen2ForCausalLM(config)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        model.lm_head.weight[end] *= 3  # now most rows end within a few tokens, each at its own step
    prompts = [[{"role": "user", "content": f"{i} {i * 7919}"}] for i in range(40)]
    sampling = Sampling(max_new_tokens=20)
    together = InProcessEngine(model, tokenizer).generate(prompts, sampling)
    alone = [InProcessEngine(model, tokenizer).generate([prompt], sampling)[0] for prompt in prompts]
    assert together == alone
    assert len({len(group[0].token_ids) for group in together}) > 3
    for (sample,) in together:
        assert sample.finish == ("stop" if sample.token_ids[-1] == end else "length")
        assert end not in sample.token_ids[:-1]


def test_the_model_is_left_in_the_mode_it_was_in(model, tokenizer):
    model.train()
    InProcessEngine(model, tokenizer).generate(PROMPTS[:1], Sampling(max_new_tokens=1))
    assert model.training
    model.eval()


def test_nucleus_draws_only_the_smallest_set_that_reaches_its_mass():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    drawn = sample_next_tokens(logits, Sampling(temperature=1.0, top_p=0.7), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 1}
    assert abs((drawn == 0).float().mean().item() - 0.5 / 0.8) < 0.03


def test_a_nucleus_wider_than_the_first_look_is_still_exact():
    logits = torch.zeros(2000, 200)  # flat: 90 % of the mass is 180 tokens
    drawn = sample_next_tokens(logits, Sampling(temperature=1.0, top_p=0.9), torch.Generator().manual_seed(0))
    assert 150 < len(set(drawn.tolist())) <= 181


def test_draws_have_the_frequencies_of_the_probabilities_and_never_take_what_has_none():
    shares = torch.tensor([0.0, 0.1, 0.0, 0.4, 0.5, 0.0])
    drawn = sample_next_tokens(
        shares.log().repeat(100_000, 1), Sampling(temperature=1.0), torch.Generator().manual_seed(0)
    )
    found = torch.bincount(drawn, minlength=6) / len(drawn)
    assert torch.allclose(found, shares, atol=0.006)  # three standard errors and a little
    assert not found[shares == 0].any()


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(StageError, match="no numbers"):
        sample_next_tokens(torch.full((2, 5), torch.nan), Sampling(temperature=1.0), torch.Generator().manual_seed(0))


def test_long_batches_are_read_in_the_mode_and_short_ones_exactly_as_without(model, tokenizer):
    long, short = ["a" * 300], ["ab"]
    sampling = Sampling(max_new_tokens=32, temperature=1.0)
    plain = InProcessEngine(model, tokenizer)
    expected = plain.generate(short, sampling), plain.generate(long, sampling)
    config = model.config.to_dict()
    engine = InProcessEngine(model, tokenizer, long_context="dca", trained_length=64)
    with long_context_mode(model, "dca", 332, trained_length=64):
        by_hand = plain.generate(long, sampling)
    assert by_hand != expected[1]
    assert engine.generate(long, sampling) == by_hand
    assert engine.generate(short, sampling) == expected[0]
    assert plain.generate(long, sampling) == expected[1]
    assert model.config.to_dict() == config
