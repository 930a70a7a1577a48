"""Blocks that know nothing of clicks: embeddings, encoders, towers (torch)."""
