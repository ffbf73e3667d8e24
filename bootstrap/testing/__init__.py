"""Tests of applications in pytest: the plugin and its clean databases."""
