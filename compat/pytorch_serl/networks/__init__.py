"""The document's networks."""
