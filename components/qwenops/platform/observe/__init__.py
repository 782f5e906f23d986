"""What watches a running stage: its progress, live figures, metrics to scrape, and its cost."""
