"""What the recipe adds to transformers' Qwen2."""
