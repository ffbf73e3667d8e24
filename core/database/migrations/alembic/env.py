"""Alembic runs this file for each of its commands; what it is to do comes with the configuration."""

from alembic import context

context.config.attributes["routemq_work"](context)
