# SPDX-License-Identifier: GPL-2.0-only
"""How the tables became what they are: one file of `versions` a step, Alembic's."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from lab.errors import ConfigurationError

_PLACE = "lab.history:migrations"


def upgrade(connection: sa.Connection, name: str, revision: str = "head") -> None:
    """Bring a database to a revision, all of it in the connection's transaction.

    Raises ConfigurationError where a newer lab has made it; `name` is what that calls it.
    """
    try:
        command.upgrade(config(connection), revision)
    except CommandError as error:
        raise ConfigurationError(
            f"{name}: {error}", hint="it belongs to a newer vfio-lab: update this one"
        ) from error


def config(connection: sa.Connection) -> Config:
    """What Alembic wants to know; `env.py` beside this takes the connection from it."""
    settings = Config(attributes={"connection": connection})
    settings.set_main_option("script_location", _PLACE)
    settings.set_main_option("path_separator", "os")
    return settings
