"""Ray: documents, training and tasks on a cluster of this run, and what its failures mean."""
