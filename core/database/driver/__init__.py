"""What the driver of a database is told: how it connects, and what may stand between it and the server."""
