"""What training costs: FLOPs and bytes from a model's dimensions, without torch, so that a plan starts nothing.

FLOPs count multiply and add as two: 6 per active parameter and token for a forward and a backward pass, 6 per entry of
the output projection and token, and 6 * layers * heads * head size * length per token for causal attention (half of the
full square). Bytes follow what transformers' Qwen2 keeps for backward, with attention by SDPA and the loss in chunks.

On a CPU the C library's heap comes on top: glibc takes what is smaller than 32 MiB from one heap and cannot give back
what lies between blocks in use. Pages of its own for every block would save that, and made a step 1.1 to 1.9 times as
long.
"""

from dataclasses import dataclass
from typing import Literal

from qwenops.model.sizes import Size, count_parameters
from qwenops.training.config import TrainingConfig

# Dense bf16 FLOP/s by the name that torch and, with hyphens for blanks, a node's label give a GPU. Source: NVIDIA's
# data sheets, whose larger figures are for sparse matrices.
PEAKS = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100-SXM4-80GB": 312e12}
_FLOAT, _CHUNK = 4, 1024
# Resident beyond the tensors at seven shapes and settings of 170 to 1,400 MB of tensors: 115 to 178 MB. With this, the
# peak planned for each is within a tenth of the measured one.
_HEAP = 150_000_000


@dataclass(frozen=True)
class Footprint:
    """Bytes of one worker at its peak, by part.

    Attributes:
        weights: fp32 weights, this worker's share.
        gradients: fp32 gradients, this worker's share.
        optimizer: Moments, this worker's share.
        activations: What a forward pass keeps for its backward pass, for the rows of one micro-batch.
        logits: Logits of one chunk, and the gradients that the chunked loss makes with them.
        recomputed: Activations of one layer that backward computes again, beside the output weight's gradient.
        second_gradient: A tied embedding's gradient as it arrives from both of its ends.
        heap: Freed memory that the C library holds on to; 0 on a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    recomputed: int
    second_gradient: int
    heap: int

    @property
    def peak(self) -> int:
        """Most bytes at once, which on a CPU is what the training adds to the resident memory of its process."""
        return self.tensors + self.heap

    @property
    def tensors(self) -> int:
        """Most bytes of tensors at once.

        Gradients come into being while the activations go, so the larger of the two counts; the loss's buffers and
        the first layer that is computed again lie beside the activations.
        """
        forward = self.activations + max(self.logits, self.recomputed)
        return self.weights + self.optimizer + max(self.gradients + self.second_gradient, forward)


def flops_per_token(size: Size, length: int, *, head: bool = True) -> int:
    """FLOPs of a forward and a backward pass per token, in rows of `length`."""
    projection = size.vocab_rows * size.hidden_size if head else 0
    attention = 6 * size.num_layers * size.num_query_heads * size.head_size * length
    return 6 * (count_parameters(size).active + projection) + attention


def footprint(
    size: Size,
    config: TrainingConfig,
    length: int,
    *,
    rows: int,
    shards: int = 1,
    accumulate: bool | None = None,
    device: Literal["cpu", "gpu"] = "cpu",
) -> Footprint:
    """Bytes of one worker that trains `rows` rows of `length` tokens per forward pass.

    Args:
        size: Dimensions of the model.
        config: Optimiser, precision and what is recomputed.
        length: Tokens of a row.
        rows: Rows of one forward pass of this worker.
        shards: Workers that weights, gradients and moments are divided over.
        accumulate: Whether gradients of earlier micro-batches lie beside the activations; by default when the config
            splits its steps.
        device: What the tensors lie on; a CPU adds its heap. What CUDA's allocator adds is not known here.
    """
    total = count_parameters(size).total
    tokens = rows * length
    width = 2 if config.precision == "bf16" else _FLOAT
    kept = _kept_per_token(size, config, width, device)
    # Embedded tokens and the final norm's two results, and rotations shared by the layers.
    ends = (3 * size.hidden_size + 2 * size.head_size) * _FLOAT
    activations = tokens * (size.num_layers * kept + ends)
    if width != _FLOAT:
        # Autocast keeps a copy of every matrix it has cast until the forward pass ends.
        activations += width * count_parameters(size).non_embedding
    head = size.vocab_rows * size.hidden_size
    logits = _loss_bytes(size, tokens, width)
    accumulate = bool(config.micro_batch_tokens) if accumulate is None else accumulate
    gradients = _FLOAT * total // shards
    again = 0
    if config.recompute == "layers":
        again = tokens * _again_per_token(size, config, width, device) + _FLOAT * head // shards
    return Footprint(
        weights=_FLOAT * total // shards + (_FLOAT * total // size.num_layers if shards > 1 else 0),
        gradients=gradients,
        optimizer=_optimizer_bytes(size, config.optimizer) // shards,
        activations=activations + (gradients if accumulate else 0),
        logits=logits,
        recomputed=again,
        second_gradient=head * _FLOAT // shards if size.tied_embeddings else 0,
        heap=min(_HEAP, activations + logits + again) if device == "cpu" else 0,
    )


def _loss_bytes(size: Size, tokens: int, width: int) -> int:
    """Most bytes of the loss: the slope of a chunk's logits, cast, with its product."""
    head, chunk = size.vocab_rows * size.hidden_size, min(_CHUNK, tokens) * size.vocab_rows
    cast = width if width != _FLOAT else 0
    return (_FLOAT + cast) * chunk + width * head + (_FLOAT + cast) * head + _FLOAT * tokens * size.hidden_size


def _kept_per_token(size: Size, config: TrainingConfig, width: int, device: str) -> int:
    """Bytes that one layer keeps of one token.

    Kept by: two norms (input, normalised, scaled), rotated queries and keys, values, the attention's result and its
    log-sum-exp, and four tensors of the feed-forward width. Norms are fp32 even under autocast, which casts their
    result for each projection that reads it: three times for attention, twice for the feed-forward layer. Attention
    computes in fp32 on a CPU; by document it keeps keys and values repeated for every query head.
    """
    hidden, queries = size.hidden_size, size.num_query_heads * size.head_size
    keys = queries if config.attention == "by_document" else size.num_kv_heads * size.head_size
    if config.recompute == "layers":
        return _FLOAT * hidden
    wide = 4 * _feed_forward_width(size)
    matrices = width * (2 * queries + 2 * keys)
    if device == "cpu" and width != _FLOAT:
        matrices = _FLOAT * (2 * queries + 2 * keys) + width * queries
    if config.recompute == "matmuls":
        return _FLOAT * hidden + matrices + width * (2 * hidden + wide // 2) + _FLOAT * size.num_query_heads
    scaled = 2 if width == _FLOAT else 5
    return _FLOAT * 4 * hidden + matrices + width * (scaled * hidden + wide) + _FLOAT * size.num_query_heads


def _again_per_token(size: Size, config: TrainingConfig, width: int, device: str) -> int:
    """Bytes of one layer computed again, with the three gradients of feed-forward width on the way back."""
    whole = config.model_copy(update={"recompute": "none"})
    return _kept_per_token(size, whole, width, device) + 3 * width * _feed_forward_width(size)


def _feed_forward_width(size: Size) -> int:
    if size.experts is None:
        return size.intermediate_size
    return size.experts.num_active * size.experts.expert_width + size.experts.shared_width


def _optimizer_bytes(size: Size, optimizer: str) -> int:
    """AdamW keeps two moments; Muon one for the layers' matrices, AdamW's two for the rest."""
    count = count_parameters(size)
    if optimizer == "adamw":
        return 2 * _FLOAT * count.total
    vectors = size.num_layers * (2 * size.hidden_size + (size.num_query_heads + 2 * size.num_kv_heads) * size.head_size)
    matrices = count.non_embedding - vectors - size.hidden_size
    return 2 * _FLOAT * count.total - _FLOAT * matrices
