"""The `online` stage; see README.md in this folder."""
