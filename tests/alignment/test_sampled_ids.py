"""Answers are learnt as the ids they were sampled as, and one that was cut at the token limit is not taught to end."""

from dataclasses import replace

import pytest
import torch
from tests.alignment.test_online_guard import CountsLetters
from tests.evaluation.models_for_tests import make_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenops.alignment.examples import encode_finished_pair, encode_pair, encode_response, encode_row
from qwenops.alignment.online.rollouts import Sampler
from qwenops.contracts.conversation import Conversation, answer, ask, read_conversations, write_conversations
from qwenops.contracts.preference import Preference, read_preferences, write_preferences
from qwenops.generation.engine import Sampling
from qwenops.generation.in_process import InProcessEngine

ROW = Conversation(id="a", messages=ask("the question"))
PAIR = Preference("p", ask("the question"), "the answer", "the other", "s", "ranked", "person:1")


@pytest.fixture(scope="module")
def merging():
    """A tokenizer with merges, so that a text has many spellings in ids."""
    return make_tokenizer()


@pytest.fixture(scope="module")
def drawn(merging):
    """200 answers of an untrained model, some ended and some cut."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(merging), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    engine = InProcessEngine(model, merging)
    groups = engine.generate([ROW.prompt] * 2, Sampling(temperature=1.0, n=100, max_new_tokens=40, seed=1))
    return model, [sample for group in groups for sample in group if sample.text.strip()]


def learnt(example):
    return [token for token, is_target in zip(example.tokens, example.loss_mask, strict=True) if is_target]


def end_of(tokenizer):
    return {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}


def test_sampled_answers_are_learnt_as_their_ids(merging, drawn):
    _, samples = drawn
    control = {merging.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")}
    clean = [s for s in samples if not control & set(s.token_ids[: len(s.token_ids) - s.is_whole])]
    assert len(clean) > 150
    examples = [encode_response(merging, ROW.prompt, s.text, s.token_ids, s.finish) for s in clean]
    assert [tuple(learnt(example)) for example in examples] == [sample.token_ids for sample in clean]
    again = [merging(sample.text, add_special_tokens=False)["input_ids"] for sample in clean]
    assert sum(tuple(ids) != s.token_ids[: len(ids)] for ids, s in zip(again, clean, strict=True)) > len(clean) / 2


def test_a_cut_answer_has_no_end_to_learn_and_an_ended_one_has_its_own(merging, drawn):
    _, samples = drawn
    ends = end_of(merging)
    for sample in samples:
        ids = learnt(encode_response(merging, ROW.prompt, sample.text, sample.token_ids, sample.finish))
        assert (ids[-1] in ends) == sample.is_whole
    assert {sample.is_whole for sample in samples} == {True, False}


@pytest.mark.parametrize("token_ids", [None, (1, 2, 3), (10**6,), ()])
def test_a_text_from_elsewhere_or_changed_since_is_tokenized_anew(merging, token_ids):
    row = replace(ROW, messages=answer(ask("the question"), "the answer"), token_ids=token_ids)
    assert merging.decode(learnt(encode_row(merging, row))) == "the answer<|im_end|>"
    assert merging.decode(learnt(encode_row(merging, replace(row, finish="length")))) == "the answer"


def test_a_demonstration_closes_its_turn_however_the_sampled_answer_ended(merging):
    over, end = (merging.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>"))
    spelt = tuple(merging.convert_tokens_to_ids(list("go")))  # not the merged spelling
    row = replace(ROW, messages=answer(ask("q"), "go"), token_ids=(*spelt, over), finish="stop")
    assert learnt(encode_row(merging, row)) == [*spelt, end]


def test_both_sides_of_a_pair_keep_ids_and_ends_on_disk_and_a_reward_model_reads_both_closed(merging, tmp_path):
    end = merging.convert_tokens_to_ids("<|im_end|>")
    better = tuple(merging.convert_tokens_to_ids(list("the")))
    worse = tuple(merging.convert_tokens_to_ids(list("a")))
    row = replace(
        PAIR, chosen="the", rejected="a", chosen_ids=(*better, end), rejected_ids=worse, chosen_finish="stop",
        rejected_finish="length",
    )  # fmt: skip
    write_preferences(tmp_path, [row])
    assert read_preferences(tmp_path) == [row]
    pair = encode_pair(merging, row)
    assert (learnt(pair.chosen), learnt(pair.rejected)) == ([*better, end], [*worse])
    closed = encode_finished_pair(merging, row)
    assert learnt(closed.chosen)[-1] == learnt(closed.rejected)[-1] == end


def test_rows_keep_ids_and_finish_on_disk_and_text_rows_need_neither(tmp_path):
    row = replace(ROW, messages=answer(ask("q"), "x"), token_ids=(5, 6), finish="length")
    write_conversations(tmp_path, [row, replace(ROW, id="b")])
    assert read_conversations(tmp_path) == [row, replace(ROW, id="b")]


def test_rollouts_hold_the_sampled_ids_and_pay_for_being_cut(merging, drawn):
    model, _ = drawn
    sampling = Sampling(n=20, temperature=1.0, max_new_tokens=30, seed=2)
    sampler = Sampler(merging, CountsLetters(), sampling, batch_tokens=65536, truncation_penalty=0.5)
    rollouts = sampler.sample(model, model, [ROW, replace(ROW, id="b")], version=0, precision="fp32")
    engine = InProcessEngine(model, merging)
    drawn_again = [s for group in engine.generate([ROW.prompt] * 2, sampling) for s in group]
    assert [tuple(learnt(item.example)) for item in rollouts] == [sample.token_ids for sample in drawn_again]
    assert {item.is_finished for item in rollouts} == {True, False}
    plain = CountsLetters().score([], [item.response for item in rollouts])
    assert [item.reward for item in rollouts] == [
        reward - 0.5 * (not item.is_finished) for reward, item in zip(plain, rollouts, strict=True)
    ]
    assert [len(item.log_probs) for item in rollouts] == [len(sample.token_ids) for sample in drawn_again]


class _Asked(CountsLetters):
    """Remembers how many responses it was asked about."""

    def __init__(self):
        self.responses = 0

    def score(self, rows, responses):
        self.responses += len(responses)
        return super().score(rows, responses)


def test_a_response_drawn_several_times_to_one_prompt_is_scored_once(merging, drawn):
    model, reward = drawn[0], _Asked()
    sampling = Sampling(n=3, temperature=0.0, max_new_tokens=6)
    sampler = Sampler(merging, reward, sampling, batch_tokens=65536)
    rollouts = sampler.sample(model, model, [ROW, replace(ROW, id="b")], version=0, precision="fp32")
    assert (len(rollouts), reward.responses) == (6, 2)
    assert [item.row.id for item in rollouts] == [ROW.id] * 3 + ["b"] * 3
