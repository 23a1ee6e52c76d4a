"""The document's replay buffer."""
