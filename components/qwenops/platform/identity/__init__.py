"""What a stage's output follows from beside its config and inputs: code, libraries, things outside."""
