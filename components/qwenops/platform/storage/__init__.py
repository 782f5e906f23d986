"""Where artifacts lie: addresses, an object store, files of others, weights."""
