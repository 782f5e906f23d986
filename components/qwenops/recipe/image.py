"""The placeholder image of every component; a placement replaces it at compile time by one pinned by digest."""

IMAGE = "qwenops/python:placement"
