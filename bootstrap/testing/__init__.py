"""The pytest plugin for tests of applications, and its clean databases."""
