"""Raw pages to token shards."""
