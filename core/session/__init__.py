"""A session with a broker, kept over any number of connections."""
