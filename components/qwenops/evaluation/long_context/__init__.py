"""The `long_context` stage; see README.md in this folder."""
