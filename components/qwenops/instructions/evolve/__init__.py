"""The `evolve` stage; see README.md in this folder."""
