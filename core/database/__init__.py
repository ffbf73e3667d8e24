"""The database: engine, sessions and what an error means."""
