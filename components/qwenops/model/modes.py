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
The temperature follows one length per request, fixed beforehand: a house choice, simpler than vLLM's, which lets
cached keys keep the temperature of the moment they were written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from transformers import PreTrainedModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from qwenops.errors import RecipeError
from qwenops.model import dual_chunk
from qwenops.model.dual_chunk import DualChunk, IdentityRotary
from qwenops.model.rope import temperature, with_yarn

Mode = Literal["plain", "temperature", "yarn", "dca_raw", "dca"]
MODES: tuple[Mode, ...] = get_args(Mode)


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
        model: A Qwen2 or Qwen2-MoE model whose config holds plain RoPE.
        mode: One of `MODES`.
        length: Tokens of the longest sequence to come, generated ones included.
        trained_length: Longest sequence the weights were trained at; by default the config's
            `max_position_embeddings`, which some published configs set higher.
        scheme: Chunks of `dca_raw` and `dca`; by default `default_dual_chunk`.

    Raises:
        RecipeError: the mode is unknown.
    """
    if mode not in MODES:
        raise RecipeError(
            "unknown long-context mode", expected=", ".join(MODES), found=mode, action="choose one of them"
        )
    config, body = model.config, model.model
    trained = config.max_position_embeddings if trained_length is None else trained_length
    factor = max(1.0, length / trained)
    rescale = temperature(max(length, trained), trained) if mode in ("temperature", "dca") else 1.0
    for layer in body.layers:
        layer.self_attn.scaling = layer.self_attn.head_dim**-0.5 * rescale**2
    if mode in ("dca_raw", "dca"):
        chunks = scheme or default_dual_chunk(trained)
        config.dual_chunk_attention_config = {
            "chunk_size": chunks.chunk_size,
            "local_size": chunks.local_size,
            "original_max_position_embeddings": trained,
        }
        body.rotary_emb = IdentityRotary()
        model.set_attn_implementation(dual_chunk.NAME)
        return
    # Left behind, it would be saved with the model, and a server that knows the key would switch DCA on.
    vars(config).pop("dual_chunk_attention_config", None)
    # The MoE model's rotary class is a copy of this one.
    yarn = with_yarn(config, factor if mode == "yarn" else 1.0, trained)
    body.rotary_emb = Qwen2RotaryEmbedding(yarn).to(model.device)
    model.set_attn_implementation("sdpa")


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
