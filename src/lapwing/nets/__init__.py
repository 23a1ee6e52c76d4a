"""Networks: vision, MLPs and distributions."""
