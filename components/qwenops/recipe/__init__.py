"""What is trained: the typed recipe, its canonical text and its fingerprint."""
