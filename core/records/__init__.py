"""What the framework itself remembers: in the database, or in files where there is none."""
