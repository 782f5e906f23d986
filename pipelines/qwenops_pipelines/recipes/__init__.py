"""recipes of qwenops."""
