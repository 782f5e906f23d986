"""Small untrained checkpoints, stages and engines for the evaluation tests."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from qwenops.contracts.tokens import CONTROL_TOKENS
from qwenops.generation.chat import render
from qwenops.generation.engine import Prompt, Sample, Sampling
from qwenops.model.checkpoints import save_checkpoint
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["the answer of the question is the answer"] * 5, trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template="{{ messages }}",
        model_input_names=["input_ids", "attention_mask"],
    )


def make_checkpoint(folder: Path, context: int = 512, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    )
    save_checkpoint(model, tokenizer, folder, context, 1000, kind="chat")
    return folder


def make_stage(folder: Path, node: str) -> Stage:
    out, scratch = folder / f"{node}-out", folder / f"{node}-scratch"
    out.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    context = RunContext(store=str(folder / "store"), events=str(folder / "events"), cache=str(folder / "cache"))
    return Stage(node, 7, context, out, scratch)


class ScriptedEngine:
    """Answers every prompt with what `answer` returns for it; with None the answer is lost."""

    name = "scripted"

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self._answer = answer

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Sample]]:
        texts = [[self._answer(render(prompt)) for _ in range(sampling.n)] for prompt in prompts]
        return [[Sample("", "lost") if text is None else Sample(text) for text in group] for group in texts]
