"""RouteMQ's framework: everything between the broker's socket and the database's."""

__version__ = "1.0.0.dev0"
