# SPDX-License-Identifier: GPL-2.0-only
"""What makes questions to a million verdicts fast: counts that are kept, and two ways to a run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# What SQLite's planner is told of the tables: rows, and rows for each value of an index' first
# column, first two, and so on. Its own guesses read all of a run for one of its tests; so that
# plans are the same for everyone, these are those of a year of four cells, and not measured.
_STATISTICS = {
    ("runs", "ix_runs_cell_night"): "2500 600 2 1",
    ("runs", "ix_runs_cell_bits"): "2500 600 4",
    ("runs", "sqlite_autoindex_runs_1"): "2500 8 2 1",
    ("verdicts", "verdicts"): "1000000 400 1",
    ("verdicts", "ix_verdicts_test"): "1000000 1250 1 1 1",
    ("verdicts", "ix_verdicts_failed"): "2000 3 1",
    ("tests", "ix_tests_rule"): "800 14",
    ("tests", "sqlite_autoindex_tests_1"): "800 1 1 1 1",
    ("tallies", "tallies"): "3200 4 1",
    ("sightings", "sightings"): "400 2 1 1",
    ("sightings", "ix_sightings_splat_id"): "400 14",
    ("cells", "sqlite_autoindex_cells_1"): "4 2 1 1 1",
}


def upgrade() -> None:
    op.drop_index("ix_runs_cell_id", "runs")
    op.create_index("ix_runs_cell_night", "runs", ["cell_id", "night", "attempt"])
    op.create_index("ix_runs_cell_bits", "runs", ["cell_id", "kernel_key"])
    op.create_index(
        "ix_verdicts_failed",
        "verdicts",
        ["test_id", "run_id"],
        sqlite_where=sa.text("failed = 1"),
        postgresql_where=sa.text("failed"),
    )
    op.create_table(
        "tallies",
        sa.Column("test_id", sa.Integer, sa.ForeignKey("tests.id"), primary_key=True),
        sa.Column("cell_id", sa.Integer, sa.ForeignKey("cells.id"), primary_key=True),
        sa.Column("passed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("""
        INSERT INTO tallies (test_id, cell_id, passed, failed)
        SELECT test_id, cell_id,
               SUM(CASE WHEN verdict IN ('kept', 'known') AND NOT failed THEN 1 ELSE 0 END),
               SUM(CASE WHEN failed THEN 1 ELSE 0 END)
        FROM verdicts JOIN runs ON runs.id = run_id
        WHERE test_id IS NOT NULL
        GROUP BY test_id, cell_id
    """)
    if op.get_context().dialect.name == "sqlite":
        op.execute("ANALYZE sqlite_schema")  # makes the table
        table = sa.table("sqlite_stat1", *map(sa.column, ("tbl", "idx", "stat")))
        lines = [
            {"tbl": of, "idx": index, "stat": numbers}
            for (of, index), numbers in _STATISTICS.items()
        ]
        op.bulk_insert(table, lines)
