"""MLflow: the record of a run, and the registry of models."""
