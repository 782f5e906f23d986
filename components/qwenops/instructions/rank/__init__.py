"""The `rank` stage; see README.md in this folder."""
