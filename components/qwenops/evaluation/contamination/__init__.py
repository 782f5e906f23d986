"""The `contamination` stage; see README.md in this folder."""
