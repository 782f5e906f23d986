"""Export, registration and the run report."""
