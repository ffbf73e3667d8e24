"""Migrations: writing them, comparing them with the models, and running them with Alembic."""
