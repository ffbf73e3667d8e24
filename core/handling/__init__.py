"""One message: its handler runs, its outcome is decided and carried out."""
