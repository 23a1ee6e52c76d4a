"""Loops, checkpoints, evaluation and reports."""
