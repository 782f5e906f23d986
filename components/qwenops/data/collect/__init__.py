"""The `collect` stage; see README.md in this folder."""
