"""The `upcycle` stage; see README.md in this folder."""
