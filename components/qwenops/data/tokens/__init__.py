"""The `tokens` stage; see README.md in this folder."""
