"""What Alembic needs of a folder of migrations, and the framework's own revisions."""
