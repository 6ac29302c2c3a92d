# SPDX-License-Identifier: GPL-2.0-only
"""The tables of the history, as its newest migration leaves them.

What repeats a million times is a number: names of cells and tests and titles of splats stand in
tables of their own. A verdict without a test is trouble of its run.
"""

import sqlalchemy as sa

from lab.results.verdict import Verdict

REVISION = "0002"  # of the newest migration

metadata = sa.MetaData()

cells = sa.Table(
    "cells",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kernel", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("suite", sa.Text, nullable=False),
    sa.Column("series", sa.Text, nullable=False),
    sa.UniqueConstraint("kernel", "machine", "suite", "series"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("night", sa.Text, nullable=False),
    sa.Column("cell_id", sa.ForeignKey("cells.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("kernel_key", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("qemu", sa.Text, nullable=False),
    sa.Column("accel", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("lab", sa.Text, nullable=False),
    sa.Column("figures", sa.JSON, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.UniqueConstraint("night", "cell_id", "attempt"),
    sa.Index("ix_runs_cell_night", "cell_id", "night", "attempt"),
    sa.Index("ix_runs_cell_bits", "cell_id", "kernel_key"),
)

tests = sa.Table(
    "tests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False, index=True),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.UniqueConstraint("name", "rule", "mode", "subject"),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("test_id", sa.ForeignKey("tests.id")),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("failed", sa.Boolean, nullable=False),
    sa.Column("duration", sa.Float, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    # all that most questions about a test ask for, so that they never read the table itself
    sa.Index("ix_verdicts_test", "test_id", "run_id", "verdict", "failed"),
    sqlite_with_rowid=False,
)
# Few fail: the questions about those that do read nothing else.
sa.Index(
    "ix_verdicts_failed",
    verdicts.c.test_id,
    verdicts.c.run_id,
    sqlite_where=sa.text("failed = 1"),
    postgresql_where=sa.text("failed"),
)

# How often a test has passed and failed in a cell, which is much to count: kept by `History.add`.
tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("test_id", sa.ForeignKey("tests.id"), primary_key=True),
    sa.Column("cell_id", sa.ForeignKey("cells.id"), primary_key=True),
    sa.Column("passed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

splats = sa.Table(
    "splats",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("title", sa.Text, nullable=False, unique=True),
)

sightings = sa.Table(
    "sightings",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("splat_id", sa.ForeignKey("splats.id"), primary_key=True, index=True),
    sa.ForeignKeyConstraint(
        ["run_id", "number"], ["verdicts.run_id", "verdicts.number"], ondelete="CASCADE"
    ),
    sqlite_with_rowid=False,
)


def passed(of: sa.FromClause = verdicts) -> sa.ColumnElement[bool]:
    """What `lab.history.past.Word.passed` says, in SQL."""
    return of.c.verdict.in_([Verdict.KEPT.value, Verdict.KNOWN.value]) & sa.not_(of.c.failed)
