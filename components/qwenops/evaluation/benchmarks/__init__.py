"""The `benchmarks` stage; see README.md in this folder."""
