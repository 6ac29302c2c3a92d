# SPDX-License-Identifier: GPL-2.0-only
"""What lab.yaml's matrix says, every night: run, compared with the nights before, and told."""
