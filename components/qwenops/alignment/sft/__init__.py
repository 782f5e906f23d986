"""The `sft` stage; see README.md in this folder."""
