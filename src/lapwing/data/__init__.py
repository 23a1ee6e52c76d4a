"""Recordings on disk: readers, checks, conversion, storage and batches."""
