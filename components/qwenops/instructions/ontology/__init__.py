"""The `ontology` stage; see README.md in this folder."""
