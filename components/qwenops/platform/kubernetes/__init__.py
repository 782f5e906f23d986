"""Kubernetes: RayJobs created, followed and explained, and the logs of their pods."""
