"""Robot learning from recorded data of two-armed robots."""
