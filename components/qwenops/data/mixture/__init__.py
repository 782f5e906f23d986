"""The `mixture` stage; see README.md in this folder."""
