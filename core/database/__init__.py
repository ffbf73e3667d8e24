"""The database: its engine, sessions and transactions, statements and migrations, and what an error means."""
