"""`qwenops plan`: what a recipe asks for, derived from its numbers; starts nothing.

FLOPs count multiply and add as two: 6 per non-embedding parameter and token for a training pass, 6 per output
embedding entry and token (the head), and 12 * layers * heads * head size * context / 2 per token for causal attention.
"""

from qwenops.model.sizes import count_parameters
from qwenops.recipe.schema import Recipe

_BYTES_FP32, _BYTES_TRAINING = 4, 16


def describe(recipe: Recipe) -> str:
    """Return the plan of `recipe` as text: parameters, memory, then tokens and FLOPs of each pretraining phase."""
    size = recipe.pretrain.size
    count = count_parameters(size)
    lines = [
        f"recipe      {recipe.name}",
        f"parameters  {count.total:,} ({count.non_embedding:,} without embeddings)",
        f"weights     {_BYTES_FP32 * count.total / 1e6:.1f} MB in fp32",
        f"training    {_BYTES_TRAINING * count.total / 1e6:.1f} MB with gradients and AdamW's two moments in fp32",
    ]
    for node in ("pretrain", "extend"):
        config = getattr(recipe, node)
        for phase in config.phases:
            tokens = phase.steps * config.training.batch_tokens
            attention = 6 * size.num_layers * size.num_query_heads * size.head_size * phase.length
            flops = tokens * (6 * (count.active + size.vocab_rows * size.hidden_size) + attention)
            lines.append(f"{node:<11} {tokens:,} tokens in rows of {phase.length:,}, {flops:.2e} FLOPs")
    return "\n".join(lines)
