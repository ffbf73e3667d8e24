"""Your models."""
