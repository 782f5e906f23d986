"""The `report` stage; see README.md in this folder."""
