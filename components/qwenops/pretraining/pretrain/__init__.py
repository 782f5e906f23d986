"""The `pretrain` stage; see README.md in this folder."""
