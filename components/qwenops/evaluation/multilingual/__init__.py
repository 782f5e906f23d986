"""The `multilingual` stage; see README.md in this folder."""
