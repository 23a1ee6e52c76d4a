"""The commands and imports of the document on PyTorch SERL, translated to `lapwing` (docs/coming-from-serl.md)."""
