"""Token shards to a long-context base model and its MoE branch."""
