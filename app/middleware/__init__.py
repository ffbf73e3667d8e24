"""Your middleware."""
