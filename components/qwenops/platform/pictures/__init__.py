"""Drawings and styles of the pages, without scripts."""
