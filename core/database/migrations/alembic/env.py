"""The environment that Alembic runs for each command. The configuration has the function that does the work."""

from alembic import context

context.config.attributes["routemq_work"](context)
