"""The document's choice of a device."""
