"""The `tokenizer` stage; see README.md in this folder."""
