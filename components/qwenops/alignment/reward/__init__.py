"""The `reward` stage; see README.md in this folder."""
