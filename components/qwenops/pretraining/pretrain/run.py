"""Pre-train a base model at the short context and measure what it learnt."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError, RecipeError
from qwenops.model import sdpa
from qwenops.model.architecture import model_config, size_of
from qwenops.model.checkpoints import load_tokenizer, save_checkpoint
from qwenops.model.sizes import count_parameters
from qwenops.model.warm_start import load_initial_model, load_initial_tokenizer
from qwenops.platform.ray.train import launch
from qwenops.platform.stage.handle import Stage
from qwenops.platform.storage.weights import resolve_weights
from qwenops.pretraining.held_out import bits_per_byte, evaluation_progress, held_out_needles, language_rows, text_rows
from qwenops.pretraining.phases import row_divisor
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.rows import RowSource
from qwenops.pretraining.summary import write_summary
from qwenops.pretraining.train import gather_full_model, train, tune_worker_threads
from qwenops.tasks.needles import evaluate_needles
from qwenops.training.objective import mean_loss
from qwenops.training.parallel import apply_parallelism, data_parallel_rank, worker_rank


def run(config: PretrainConfig, *, tokens: Path, tokenizer: Path, stage: Stage) -> None:
    """Train on `tokens`; write a checkpoint folder, curves and a summary into `stage.out`."""
    report = launch(
        pretrain_loop,
        {"config": config, "tokens": tokens, "tokenizer": tokenizer, "stage": stage},
        stage.context,
        stage.node,
        stage.scratch / "ray",
    )
    counted = count_parameters(config.size)
    figures = report["metrics"] | {"parameters.total": counted.total, "parameters.non_embedding": counted.non_embedding}
    for name, value in figures.items():
        stage.metric(name, value)
    stage.records = report["tokens"]
    write_summary(stage.out, "Pre-training", figures, report["by_depth"])


def pretrain_loop(job: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs: build, train, evaluate; rank 0 saves."""
    config, stage = job["config"], job["stage"]
    shards, tokenizer = TokenShards(job["tokens"]), load_tokenizer(job["tokenizer"])
    source = resolve_weights(config.init_from, stage.context.cache_folder("weights"))
    if source:
        check_vocabulary(source, tokenizer)
    model, device = initial_model(config, source, len(tokenizer), stage.seed), worker_rank()
    model.to(device.kind)  # type: ignore[arg-type]
    apply_parallelism(model, stage.context.parallel, row_divisor(config.phases))
    length, rows_of = config.phases[-1].length, data_parallel_rank()
    text = text_rows(shards, length, config.evaluation_tokens)
    languages = language_rows(shards, length, config.evaluation_tokens)
    needles = None
    if config.evaluation_needles:
        needles = held_out_needles(shards, tokenizer, length, config.evaluation_needles)
    rows = RowSource(
        shards,
        tokenizer,
        config.phases,
        config.practice,
        config.training.batch_tokens,
        stage.seed,
        rows_of.rank,
        rows_of.world_size,
    )
    threads = tune_worker_threads(model, rows, config.training, stage)
    with evaluation_progress(stage, "before", text) as on_tokens:
        metrics = {"loss.first": mean_loss(model, text, on_tokens)}
    trained, speed = train(model, rows, config.training, stage)
    metrics |= {"threads": threads} | speed
    by_depth = {}
    read = (text, *(language.batches for language in languages.values()), needles)
    with evaluation_progress(stage, "after", *read) as on_tokens:
        metrics["loss.final"] = mean_loss(model, text, on_tokens)
        metrics |= bits_per_byte(model, languages, on_tokens)
        if needles:
            score = evaluate_needles(model, needles, on_tokens=on_tokens)
            metrics |= {"needle.accuracy": score.accuracy, "needle.count": score.count}
            by_depth = score.by_depth
    seen = trained.tokens
    finished = gather_full_model(model)
    if device.rank == 0:
        # Rows shorter than what the initial weights were trained at do not shorten what the model reads.
        context = max(length, model.config.max_position_embeddings if source else 0)
        save_checkpoint(finished, tokenizer, stage.out, context, seen, parent=config.init_from)
    return {"metrics": metrics, "tokens": seen, "by_depth": by_depth}


def initial_model(config: PretrainConfig, source: str, vocabulary: int, seed: int) -> PreTrainedModel:
    """Fresh weights drawn from `seed`, or those at `source`; fp32, on the CPU.

    Raises:
        RecipeError: the embedding has fewer rows than the tokenizer has tokens, or the initial weights are not
            what the recipe says they are.
    """
    torch.manual_seed(seed)
    if source:
        model = load_initial_model(source)
        _check_warm_start(config, model)
    else:
        model = AutoModelForCausalLM.from_config(
            model_config(
                config.size,
                rope_theta=config.rope_theta,
                max_position_embeddings=config.phases[-1].length,
                initializer_range=config.initializer_range,
            ),
            attn_implementation=sdpa.NAME,
            dtype=torch.float32,
        )
    rows = _embedding_rows(model)
    if rows < vocabulary:
        raise RecipeError(
            "the embedding is smaller than the vocabulary",
            expected=f"pretrain.size.vocab_rows >= {vocabulary}",
            found=rows,
            action="raise vocab_rows to the next multiple of 128, or train a smaller tokenizer",
        )
    return model


def check_vocabulary(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse initial weights whose own tokenizer numbers its tokens otherwise than the run's.

    Raises:
        ContractError: their vocabularies differ; rows of the embedding would mean other tokens.
    """
    own, ours = load_initial_tokenizer(source).get_vocab(), tokenizer.get_vocab()
    if own != ours:
        differing = sorted({token for token, _ in own.items() ^ ours.items()})
        raise ContractError(
            "the run's tokenizer is not that of the initial weights",
            expected=f"the {len(own)} tokens of {source}",
            found=f"{len(ours)} tokens; {len(differing)} differ, {differing[0]!r} among them",
            action="set tokenizer.init_from to the same source",
        )


def _check_warm_start(config: PretrainConfig, model: PreTrainedModel) -> None:
    dense = {"experts"}
    found, wanted = size_of(model.config).model_dump(exclude=dense), config.size.model_dump(exclude=dense)
    different = [name for name in wanted if wanted[name] != found[name]]
    if different:
        raise RecipeError(
            "the initial weights have another size than the recipe",
            expected=", ".join(f"pretrain.size.{name} {wanted[name]}" for name in different),
            found=", ".join(str(found[name]) for name in different),
            action="set pretrain.size to the model's dimensions",
        )
    theta = model.config.rope_parameters["rope_theta"]
    if theta != config.rope_theta:
        raise RecipeError(
            "the recipe would change the RoPE base without the long-context phase",
            expected=f"pretrain.rope_theta {theta:g}, the initial weights' own",
            found=f"{config.rope_theta:g}",
            action="set pretrain.rope_theta; extend.rope_theta is where the base changes",
        )
    longest = max(phase.length for phase in config.phases)
    if longest > model.config.max_position_embeddings:
        raise RecipeError(
            "rows are longer than the initial weights can read",
            expected=f"pretrain.phases of at most {model.config.max_position_embeddings} tokens",
            found=longest,
            action="shorten them; extend is where the context grows",
        )


def _embedding_rows(model: nn.Module) -> int:
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator,union-attr]
