# SPDX-License-Identifier: GPL-2.0-only
"""What makes questions to a million verdicts fast: counts that are kept, and two ways to a run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_index("ix_runs_cell_id", "runs")
    op.create_index("ix_runs_cell_night", "runs", ["cell_id", "night"])
    op.create_index("ix_runs_cell_bits", "runs", ["cell_id", "kernel_key"])
    failed = sa.column("failed", sa.Boolean)
    op.create_index(
        "ix_verdicts_failed",
        "verdicts",
        ["test_id", "run_id"],
        sqlite_where=failed,
        postgresql_where=failed,
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
