"""The `synthesize` stage; see README.md in this folder."""
