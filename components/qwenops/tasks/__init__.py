"""Task families written by the project: generators and their verifiers."""
