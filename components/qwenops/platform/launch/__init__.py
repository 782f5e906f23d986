"""Who runs a stage that is not finished yet, and what Kubeflow shows of it."""
