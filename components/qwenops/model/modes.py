"""Switch a loaded model between the ways of reading beyond its trained length.

| mode | positions | attention temperature |
|---|---|---|
| `plain` | RoPE | none |
| `temperature` | RoPE | YaRN's |
| `yarn` | YaRN's frequencies | YaRN's |
| `dca_raw` | Dual Chunk Attention | none |
| `dca` | Dual Chunk Attention | YaRN's |

The last is what the report calls "YARN + DCA": with DCA the frequencies stay plain and YaRN only rescales the attention
weights (section 2.2.1). `temperature` and `dca_raw` exist so that an evaluation can tell which half of it did the work.
YaRN and the temperature follow one length per request: switching is cheap, so an engine calls `apply_request` before
each batch, and inputs within the trained length read exactly as without a mode. Calling `apply_mode` once with the
longest length to come gives static YaRN, which changes short inputs too. One length, fixed beforehand, is a house
choice, simpler than vLLM's, which lets cached keys keep the temperature of the moment they were written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from transformers import PreTrainedModel

from qwenops.errors import RecipeError
from qwenops.model import dual_chunk, sdpa
from qwenops.model.dual_chunk import DualChunk, IdentityRotary
from qwenops.model.rope import temperature, with_yarn

Mode = Literal["plain", "temperature", "yarn", "dca_raw", "dca"]
MODES: tuple[Mode, ...] = get_args(Mode)
# The report reads up to 131,072 tokens with models trained at 32,768.
LONGEST_MULTIPLE = 4


def default_dual_chunk(trained_length: int) -> DualChunk:
    """Chunks for a model trained at `trained_length`: plain attention up to there, an eighth of it exact at borders."""
    return DualChunk(chunk_size=trained_length, local_size=max(1, trained_length // 8))


def apply_mode(
    model: PreTrainedModel,
    mode: Mode,
    length: int,
    *,
    trained_length: int | None = None,
    scheme: DualChunk | None = None,
) -> None:
    """Set `model` to read sequences of `length` tokens in `mode`, whatever its mode was before.

    Args:
        model: A model with Llama's module names and plain RoPE: Qwen2, Qwen2-MoE, Llama, Mistral and their kin.
        mode: One of `MODES`.
        length: Tokens of the longest sequence to come, generated ones included.
        trained_length: Longest sequence the weights were trained at; by default the config's
            `max_position_embeddings`, which some published configs set higher.
        scheme: Chunks of `dca_raw` and `dca`; by default `default_dual_chunk`.

    Raises:
        RecipeError: the mode is unknown, the model is of another kind, or its config holds scaled RoPE.
    """
    if mode not in MODES:
        raise RecipeError(
            "unknown long-context mode", expected=", ".join(MODES), found=mode, action="choose one of them"
        )
    config, body = model.config, _body(model)
    trained = config.max_position_embeddings if trained_length is None else trained_length
    factor = max(1.0, length / trained)
    rescale = temperature(max(length, trained), trained) if mode in ("temperature", "dca") else 1.0
    for layer in body.layers:
        layer.self_attn.scaling = layer.self_attn.head_dim**-0.5 * rescale**2
    rotary = body.rotary_emb.replaced if isinstance(body.rotary_emb, IdentityRotary) else type(body.rotary_emb)
    if mode in ("dca_raw", "dca"):
        chunks = scheme or default_dual_chunk(trained)
        config.dual_chunk_attention_config = dual_chunk_config(chunks, trained)
        body.rotary_emb = IdentityRotary(rotary)
        model.set_attn_implementation(dual_chunk.NAME)
        return
    # Left behind, it would be saved with the model, and a server that knows the key would switch DCA on.
    vars(config).pop("dual_chunk_attention_config", None)
    yarn = with_yarn(config, factor if mode == "yarn" else 1.0, trained)
    body.rotary_emb = rotary(yarn).to(model.device)
    model.set_attn_implementation(sdpa.NAME)


def apply_request(model: PreTrainedModel, mode: Mode, length: int, trained_length: int) -> None:
    """Set `model` for one request (or batch) of at most `length` tokens: `mode` where it is needed, else plain."""
    apply_mode(model, mode if length > trained_length else "plain", length, trained_length=trained_length)


def config_keys(mode: Mode, trained_length: int, multiple: int) -> dict[str, object]:
    """What to add to `config.json` so that a server reads up to `multiple` times the trained length by itself.

    Static: it holds for short inputs too. `yarn` is read by transformers and vLLM, `dca` by servers that implement it.
    """
    if mode == "yarn":
        scaling = {"factor": float(multiple), "original_max_position_embeddings": trained_length}
        return {"rope_scaling": {"type": "yarn", "rope_type": "yarn", **scaling}}
    if mode == "dca":
        return {"dual_chunk_attention_config": dual_chunk_config(default_dual_chunk(trained_length), trained_length)}
    return {}


def dual_chunk_config(scheme: DualChunk, trained_length: int) -> dict[str, int]:
    """The `dual_chunk_attention_config` of a `config.json`, under the names that vLLM and SGLang read."""
    return {
        "chunk_size": scheme.chunk_size,
        "local_size": scheme.local_size,
        "original_max_position_embeddings": trained_length,
    }


@contextmanager
def long_context_mode(
    model: PreTrainedModel,
    mode: Mode,
    length: int,
    *,
    trained_length: int | None = None,
    scheme: DualChunk | None = None,
) -> Iterator[PreTrainedModel]:
    """Apply a mode (see `apply_mode`) and return to plain afterwards."""
    apply_mode(model, mode, length, trained_length=trained_length, scheme=scheme)
    try:
        yield model
    finally:
        apply_mode(model, "plain", length, trained_length=trained_length)


def _body(model: PreTrainedModel) -> Any:
    """The decoder, when a mode can be applied to it."""
    body: Any = model.base_model
    try:
        _needed = body.rotary_emb, body.layers[0].self_attn.scaling, model.config.rope_parameters["rope_theta"]
        kind = model.config.rope_parameters["rope_type"]
    except (AttributeError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{type(model).__name__} has no long-context modes",
            expected="a decoder with rotary embeddings, built as Qwen2 and Llama are",
            found=error,
            action="use a Qwen2 or Llama-like model",
        ) from None
    if kind not in ("default", "yarn"):
        raise RecipeError(
            "the model's RoPE is scaled in another way",
            expected="plain RoPE or YaRN, which a mode replaces",
            found=kind,
            action="remove rope_scaling from config.json, and give trained_length",
        )
    return body
