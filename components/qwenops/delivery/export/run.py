"""Write the final checkpoint as a folder that stock transformers loads, and prove that it does."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.manifest import read_manifest
from qwenops.contracts.tokens import TokenShards
from qwenops.delivery.export.card import CardFacts, model_card
from qwenops.delivery.export.chat_checks import stops_at_end_of_turn, template_differences
from qwenops.delivery.export.config import ExportConfig
from qwenops.delivery.export.quickstart import run_quickstart
from qwenops.errors import StageError
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint
from qwenops.model.modes import LONGEST_MULTIPLE, config_keys, default_dual_chunk
from qwenops.platform.mlflow.model import write_mlflow_model
from qwenops.platform.stage.handle import Stage

CHECKS = "export.json"


def run(config: ExportConfig, *, checkpoint: Path, tokenizer: Path, tokens: Path, stage: Stage) -> None:
    """Export `checkpoint` into `stage.out`: weights, tokenizer, configs, card; then check the folder.

    Raises:
        StageError: the folder's logits differ from the trained model's, it renders conversations otherwise or does not
            end its turns, or the quickstart fails on it.
    """
    facts = read_facts(checkpoint)
    model = load_model(checkpoint, getattr(torch, config.dtype))
    save_checkpoint(
        model,
        load_tokenizer(tokenizer),
        stage.out,
        facts.context_length_tokens,
        facts.tokens_seen,
        parent=read_manifest(checkpoint).node,
        kind="chat",
    )
    _write_generation_config(config, stage.out)
    shards = TokenShards(tokens)
    _write_card(config, model, checkpoint, tokens, shards, stage.out)
    difference = logit_difference(model, stage.out, _held_out(shards, config.compared_tokens))
    stage.metric("export.max_logit_difference", difference)
    if difference > config.logit_tolerance:
        raise StageError(
            "the exported folder is not the trained model",
            expected=f"logits within {config.logit_tolerance}",
            found=difference,
            action="compare config.json of the two folders; the RoPE keys are the usual cause",
        )
    _check_talk(stage)
    _write_mode(config, facts.context_length_tokens, stage.out)
    write_mlflow_model(stage.out, read_manifest(checkpoint).digest)
    checks: dict[str, object] = {"max_logit_difference": difference}
    if config.quickstart == "run":
        answer = run_quickstart(
            stage.out, config.quickstart_prompt, config.quickstart_new_tokens, config.quickstart_timeout_seconds
        )
        checks["quickstart"] = {"prompt": answer.text, "response": answer.response, "tokens": answer.tokens}
        if answer.tokens >= config.quickstart_new_tokens:
            stage.warn(f"the quickstart's answer did not end within {config.quickstart_new_tokens} tokens")
    (stage.out / CHECKS).write_text(json.dumps(checks, indent=1, ensure_ascii=False), encoding="utf-8")
    stage.records = sum(p.numel() for p in model.parameters())


def _check_talk(stage: Stage) -> None:
    """Hold the folder's template and its end of a turn against training's."""
    differences, ends = template_differences(stage.out), stops_at_end_of_turn(stage.out)
    stage.metric("export.template_differences", len(differences))
    stage.metric("export.ends_turn", float(ends))
    if differences:
        expected, found = differences[0]
        raise StageError(
            "the exported chat template renders other text than the model was trained on",
            expected=repr(expected),
            found=repr(found),
            action="give the checkpoint's tokenizer the ChatML template of the tokenizer stage",
        )
    if not ends:
        raise StageError(
            "generation with the exported settings does not end with the turn",
            expected="<|im_end|> among eos_token_id of generation_config.json",
            found="other tokens",
            action="look at the control tokens of the checkpoint's tokenizer",
        )


def logit_difference(trained: PreTrainedModel, folder: Path, input_ids: torch.Tensor) -> float:
    """Largest absolute logit difference between `trained` and what transformers loads from `folder`.

    Both run in float32 from weights of the exported type, so that only a fault of the folder shows.

    Args:
        trained: The model in the exported type; made float32 in place.
        folder: The exported folder.
        input_ids: int64, shape [1, L].
    """
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    with torch.no_grad():
        return float((trained.float()(input_ids).logits - loaded(input_ids).logits).abs().max())


def _write_mode(config: ExportConfig, trained: int, out: Path) -> None:
    """Add the long-context mode to `config.json`, under the names of transformers 4 and 5 and of vLLM."""
    path = out / "config.json"
    keys = config_keys(config.long_context, trained, LONGEST_MULTIPLE)
    written = json.loads(path.read_text(encoding="utf-8")) | keys
    if config.long_context == "yarn":
        written["rope_parameters"] = {"rope_theta": written["rope_theta"], **written["rope_scaling"]}
        # Older transformers take YaRN's correction range from here.
        written["max_position_embeddings"] = trained
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _held_out(shards: TokenShards, length: int) -> torch.Tensor:
    pieces: list[np.ndarray] = []
    for document in shards.documents("heldout"):
        pieces.append(np.asarray(document, dtype=np.int64))
        if sum(len(piece) for piece in pieces) >= length:
            break
    return torch.from_numpy(np.concatenate(pieces)[:length])[None]


def _write_generation_config(config: ExportConfig, out: Path) -> None:
    """Keep the control ids `save_checkpoint` wrote and set the recipe's default decoding."""
    written = GenerationConfig.from_pretrained(out)
    settings = {"eos_token_id": written.eos_token_id, "pad_token_id": written.pad_token_id}
    if config.decoding == "sample":
        settings |= {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    GenerationConfig(**settings, repetition_penalty=config.repetition_penalty).save_pretrained(out)


def _write_card(
    config: ExportConfig, model: PreTrainedModel, checkpoint: Path, tokens: Path, shards: TokenShards, out: Path
) -> None:
    facts = read_facts(checkpoint)
    card = CardFacts(
        architecture=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary=model.config.vocab_size,
        checkpoint=facts,
        local_size=default_dual_chunk(facts.context_length_tokens).local_size,
        languages=sorted(shards.index.heldout_languages),
        domains=shards.weights,
        data_digest=read_manifest(tokens).digest,
        metrics=read_manifest(checkpoint).metrics,
    )
    (out / "README.md").write_text(model_card(config, card), encoding="utf-8")
