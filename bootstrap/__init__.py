"""What puts an application together, starts it and stops it."""
