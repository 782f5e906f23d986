"""The only place that talks to Ray, MLflow, storage and the cluster."""
