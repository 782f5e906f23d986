"""The `ingest` stage; see README.md in this folder."""
