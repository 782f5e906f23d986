"""The `dedup` stage; see README.md in this folder."""
