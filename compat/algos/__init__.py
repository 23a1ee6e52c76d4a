"""The documents' classes, over the package."""
