"""Puts the application together, starts it and stops it."""
