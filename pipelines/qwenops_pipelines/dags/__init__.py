"""dags of qwenops."""
