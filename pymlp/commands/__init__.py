"""The commands of `pymlp`, one module each."""
