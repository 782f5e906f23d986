"""What passes between stages: schemas, manifests, metric names and gates."""
