"""Benchmarks, long context, safety, languages and contamination."""
