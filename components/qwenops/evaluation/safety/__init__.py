"""The `safety` stage; see README.md in this folder."""
