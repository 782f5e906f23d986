"""Train Qwen's kind of tokenizer: byte-level BPE, digits one by one, three control tokens last.

The report takes its vocabulary over from Qwen1, which grew it from tiktoken's `cl100k_base`; ours is trained from the
run's own text with the same normalisation, pre-tokenisation and special tokens, so a run depends on no download. A
vocabulary that is at hand can be grown instead (`extend`). The folder is an ordinary transformers tokenizer.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qwenops.contracts.tokens import CONTROL_TOKENS, END_OF_TEXT
from qwenops.data.tokenizer.extend import grow_vocabulary, read_vocabulary
from qwenops.errors import ContractError, RecipeError

# transformers' tokenization_qwen2.py; against cl100k the one change is \p{N} for \p{N}{1,3}: digits stand alone.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen2's own chat template, from the tokenizer_config.json of its instruct models.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LONGEST = 131_072


def train(texts: Iterable[str], vocabulary: int, least_frequency: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocabulary` tokens; fewer when the texts have fewer frequent pairs."""
    tokenizer = _qwen(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CONTROL_TOKENS),
        min_frequency=least_frequency,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _for_chat(_with_controls(tokenizer))


def extend(base: Path, texts: Iterable[str], vocabulary: int, least_frequency: int) -> PreTrainedTokenizerFast:
    """Grow the vocabulary of `base` to at most `vocabulary` tokens; its own ids stay, control tokens come last.

    Raises:
        RecipeError: there is no usable vocabulary, or it is larger already.
    """
    found = read_vocabulary(base)
    size = vocabulary - len(CONTROL_TOKENS)
    if len(found.ids) > size:
        raise RecipeError(
            "the vocabulary to extend is larger than the recipe's",
            expected=f"at most {size} tokens beside the control tokens",
            found=len(found.ids),
            action=f"set tokenizer.vocabulary to {len(found.ids) + len(CONTROL_TOKENS)} or more",
        )
    encoder = _qwen(models.BPE(vocab=dict(found.ids), merges=found.merges))
    grown = grow_vocabulary(found, encoder, texts, size, least_frequency)
    return _for_chat(_with_controls(_qwen(models.BPE(vocab=dict(grown.ids), merges=grown.merges))))


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the transformers folder, and `vocab.json` with `merges.txt` for tools that read those.

    The class is named as in Qwen's own folders: transformers 5 would write a name that transformers 4 does not know.
    """
    _write(tokenizer, folder, "Qwen2Tokenizer")
    tokenizer.backend_tokenizer.model.save(str(folder))


def save_adapted(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer that came with a model as the pipeline needs it; its ids and the way it cuts text stay.

    The class is the general one: Qwen's own would put its pre-tokenisation in place of this one's.

    Raises:
        ContractError: it lacks a control token.
    """
    vocabulary = tokenizer.get_vocab()
    if lacking := [token for token in CONTROL_TOKENS if token not in vocabulary]:
        raise ContractError(
            "the tokenizer taken over lacks control tokens",
            expected=", ".join(CONTROL_TOKENS),
            found=f"no {', '.join(lacking)}",
            action="start from a model that speaks ChatML",
        )
    _write(_for_chat(tokenizer.backend_tokenizer), folder, "PreTrainedTokenizerFast")


def _qwen(model: models.BPE) -> Tokenizer:
    """Qwen's normaliser, pre-tokeniser and decoder around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_controls(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return tokenizer


def _for_chat(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        bos_token=None,
        unk_token=None,
        additional_special_tokens=list(CONTROL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=_LONGEST,
        clean_up_tokenization_spaces=False,
    )


def _write(tokenizer: PreTrainedTokenizerFast, folder: Path, class_name: str) -> None:
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": class_name}
    path.write_text(json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def balance_bytes(sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """Share `budget` bytes evenly among languages; what a small language cannot use goes to the others."""
    shares: dict[str, int] = {}
    left = budget
    for place, language in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        shares[language] = min(sizes[language], left // (len(sizes) - place))
        left -= shares[language]
    return shares


def take_shares(rows: Iterable[tuple[str, str]], shares: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Rows of (language, text) until each language has used up its bytes; the last text of one is cut."""
    used = Counter[str]()
    for language, text in rows:
        room = shares.get(language, 0) - used[language]
        if room > 0:
            size = len(text.encode())
            used[language] += size
            yield language, text if size <= room else text.encode()[:room].decode(errors="ignore")
