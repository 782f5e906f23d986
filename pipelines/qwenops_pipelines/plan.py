"""`qwenops plan`: what a recipe asks for, derived from its numbers; starts nothing.

FLOPs count multiply and add as two: 6 per non-embedding parameter and token for a training pass, 6 per output
embedding entry and token (the head), and 12 * layers * heads * head size * context / 2 per token for causal attention.
"""

from qwenops.recipe.schema import Recipe

_NODES_WITH_TRAINING = ("pretrain", "extend")


def describe(recipe: Recipe) -> str:
    """Return the plan of `recipe` as text: parameters, then tokens and FLOPs of each pretraining phase."""
    model = recipe.pretrain.model
    head_size = model.hidden_size // model.num_attention_heads
    body, embedding = count_parameters(recipe)
    lines = [
        f"recipe      {recipe.name}",
        f"parameters  {body + embedding:,} ({body:,} without embeddings)",
        f"weights     {4 * (body + embedding) / 1e6:.1f} MB in fp32",
        f"training    {16 * (body + embedding) / 1e6:.1f} MB with gradients and AdamW's two moments in fp32",
    ]
    for node in _NODES_WITH_TRAINING:
        config = getattr(recipe, node)
        tokens = config.training.steps * config.training.batch_tokens
        attention = 6 * model.num_hidden_layers * model.num_attention_heads * head_size * config.context_length_tokens
        flops = tokens * (6 * (body + recipe.tokenizer.vocabulary_size * model.hidden_size) + attention)
        lines.append(f"{node:<11} {tokens:,} tokens at {config.context_length_tokens:,}, {flops:.2e} FLOPs")
    return "\n".join(lines)


def count_parameters(recipe: Recipe) -> tuple[int, int]:
    """Return (without embeddings, embeddings) by the closed form of the architecture (Qwen2 report, Table 1)."""
    model = recipe.pretrain.model
    hidden, inner = model.hidden_size, model.intermediate_size
    key_value = model.num_key_value_heads * (hidden // model.num_attention_heads)
    attention = hidden * hidden + hidden + 2 * (hidden * key_value + key_value) + hidden * hidden
    body = model.num_hidden_layers * (attention + 3 * hidden * inner + 2 * hidden) + hidden
    tables = 1 if model.tie_word_embeddings == "tied" else 2
    return body, tables * recipe.tokenizer.vocabulary_size * hidden
