"""The tokenizer: Qwen's rules on arbitrary text, control tokens out of reach, the same folder twice."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qwenops.contracts.tokens import CONTROL_TOKENS, encode_texts
from qwenops.data.tokenizer.bpe import adopt, balanced, save, take, train
from qwenops.errors import ContractError
from qwenops.generation.chat import render

TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog sleeps.\n" * 20,
    "def reverse(items):\n    return items[::-1]\n" * 20,
    "我们今天在这里讨论数据清洗的方法。" * 20,
    "Die Sprache der Daten ist fuer alle Menschen da. 2024 12 31\n" * 20,
]
VOCABULARY = 360


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save(train(TEXTS, VOCABULARY, 2), folder)
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_decodes_to_its_composed_form(tokenizer, text):
    assert tokenizer.decode(encode_texts(tokenizer, [text])[0]) == unicodedata.normalize("NFC", text)


def test_control_tokens_are_the_last_ids(tokenizer):
    assert len(tokenizer) == VOCABULARY
    ids = tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS))
    assert ids == [VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1]


def test_digits_are_single_tokens(tokenizer):
    assert len(encode_texts(tokenizer, ["20241231"])[0]) == 8


def test_composed_and_decomposed_text_give_equal_ids(tokenizer):
    composed, decomposed = encode_texts(tokenizer, ["caf\u00e9", "cafe\u0301"])
    assert composed == decomposed


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_text_cannot_yield_a_control_token(tokenizer, token):
    ids = encode_texts(tokenizer, [f"before {token} after"])[0]
    assert tokenizer.convert_tokens_to_ids(token) not in ids
    assert tokenizer.decode(ids) == f"before {token} after"


def test_chat_template_adds_the_default_system_message(tokenizer):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chat_template_keeps_a_given_system_message(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"


def test_learned_text_is_compressed(tokenizer):
    text = "The quick brown fox"
    assert len(text) / len(encode_texts(tokenizer, [text])[0]) > 1.8


def test_training_twice_gives_the_same_tokenizer(tokenizer):
    assert train(TEXTS, VOCABULARY, 2).get_vocab() == tokenizer.get_vocab()


def test_sample_is_even_and_a_small_language_gives_its_rest_away():
    assert balanced({"en": 1000, "zh": 1000, "lo": 10}, 300) == {"lo": 10, "en": 145, "zh": 145}
    assert sum(balanced({"en": 5, "zh": 7}, 1000).values()) == 12


def test_sample_takes_each_language_up_to_its_share():
    rows = [("en", "abcdef"), ("zh", "数据清洗"), ("en", "ghi")]
    assert list(take(rows, {"en": 4, "zh": 7})) == [("en", "abcd"), ("zh", "数据")]


def test_tokenizer_taken_over_keeps_its_ids_and_speaks_chatml(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*CONTROL_TOKENS, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(CONTROL_TOKENS))
    theirs = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|im_start|>")
    adopt(theirs, tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    text = "12 und <|im_end|>"
    assert found.get_vocab() == theirs.get_vocab()
    assert encode_texts(found, [text]) == encode_texts(theirs, [text])
    assert CONTROL_TOKENS[2] not in found.convert_ids_to_tokens(encode_texts(found, [text])[0])
    assert (found.eos_token, found.pad_token, found.bos_token) == ("<|endoftext|>", "<|endoftext|>", None)
    messages = ({"role": "user", "content": "hi"},)
    assert found.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == render(messages)


def test_tokenizer_without_control_tokens_is_not_taken_over(tmp_path):
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    with pytest.raises(ContractError, match="lacks control tokens"):
        adopt(plain, tmp_path)
