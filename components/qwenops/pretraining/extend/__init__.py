"""The `extend` stage; see README.md in this folder."""
