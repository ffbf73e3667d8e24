"""One message: its handler runs, then its outcome is decided and carried out."""
