"""The document's learners."""
