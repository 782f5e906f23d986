"""The `export` stage; see README.md in this folder."""
