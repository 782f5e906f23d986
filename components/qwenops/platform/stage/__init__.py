"""One stage: what its `run` is given, its task, its events, and how its artifact is made."""
