"""Instructions, demonstrations and preferences."""
