# SPDX-License-Identifier: GPL-2.0-only
"""Alembic runs this for each of its commands."""

from alembic import context

from lab.history.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
