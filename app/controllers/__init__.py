"""Your controllers."""
