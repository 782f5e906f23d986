"""Pre-train a base model at the short context and measure what it learnt."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from qwenops.contracts.tokens import TokenShards
from qwenops.errors import RecipeError
from qwenops.model.architecture import model_config
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint
from qwenops.model.sizes import count_parameters
from qwenops.platform.ray_train import launch
from qwenops.platform.stage import Stage
from qwenops.pretraining.held_out import bits_per_byte, held_out_needles, language_metrics, text_rows
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.rows import RowSource
from qwenops.pretraining.summary import write_summary
from qwenops.pretraining.train import train, unsharded
from qwenops.tasks.needles import evaluate_needles
from qwenops.training.objective import mean_loss
from qwenops.training.parallel import place, shard


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
    model, device = initial_model(config, len(tokenizer), stage.seed), place()
    model.to(device.kind)  # type: ignore[arg-type]
    shard(model)
    length = config.phases[-1].length
    text = text_rows(shards, length, config.evaluation_tokens)
    metrics = {"loss.first": mean_loss(model, text)}
    source = RowSource(
        shards,
        tokenizer,
        config.phases,
        config.practice,
        config.training.batch_tokens,
        stage.seed,
        device.rank,
        device.world_size,
    )
    trained = train(model, source, config.training, stage)
    metrics |= {
        "loss.final": mean_loss(model, text),
        "threads": trained.threads,
        "tokens_per_second": trained.fit.tokens_per_second * device.world_size,
    }
    metrics |= language_metrics(bits_per_byte(model, shards, length, config.evaluation_tokens))
    by_depth = {}
    if config.evaluation_needles:
        score = evaluate_needles(model, held_out_needles(shards, tokenizer, length, config.evaluation_needles))
        metrics |= {"needle.accuracy": score.accuracy, "needle.count": score.count}
        by_depth = score.by_depth
    seen = trained.fit.tokens * device.world_size
    finished = unsharded(model)
    if device.rank == 0:
        save_checkpoint(finished, tokenizer, stage.out, length, seen, parent=config.init_from)
    return {"metrics": metrics, "tokens": seen, "by_depth": by_depth}


def initial_model(config: PretrainConfig, vocabulary: int, seed: int) -> PreTrainedModel:
    """Fresh weights drawn from `seed`, or those of `init_from`; fp32, on the CPU.

    Raises:
        RecipeError: the embedding has fewer rows than the tokenizer has tokens.
    """
    torch.manual_seed(seed)
    if config.init_from:
        model: PreTrainedModel = load_model(Path(config.init_from))
    else:
        model = AutoModelForCausalLM.from_config(
            model_config(
                config.size,
                rope_theta=config.rope_theta,
                max_position_embeddings=config.phases[-1].length,
                initializer_range=config.initializer_range,
            ),
            attn_implementation="sdpa",
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


def _embedding_rows(model: nn.Module) -> int:
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator,union-attr]
