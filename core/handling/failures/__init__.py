"""What is done about failures: whose they are, what waits for which end, and where messages go that cannot be handled."""
