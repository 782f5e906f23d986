"""The `select` stage; see README.md in this folder."""
