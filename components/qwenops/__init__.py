"""qwenops: raw pages to a registered, evaluated chat model, following the Qwen2 recipe.

Importing this package imports nothing heavy; each area is imported where it is used.
"""

__version__ = "0.1.0"
