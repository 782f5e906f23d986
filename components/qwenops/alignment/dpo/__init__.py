"""The `dpo` stage; see README.md in this folder."""
