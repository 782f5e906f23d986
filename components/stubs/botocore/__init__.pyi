"""What this project uses of botocore, which brings no types."""
