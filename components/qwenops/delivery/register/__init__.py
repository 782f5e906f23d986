"""The `register` stage; see README.md in this folder."""
