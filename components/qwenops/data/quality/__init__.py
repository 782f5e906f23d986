"""The `quality` stage; see README.md in this folder."""
