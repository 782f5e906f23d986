"""Recipes, placements and DAGs of the Qwen2 pipeline."""
