"""The `decontaminate` stage; see README.md in this folder."""
