"""placements of qwenops."""
