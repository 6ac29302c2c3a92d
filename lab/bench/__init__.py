# SPDX-License-Identifier: GPL-2.0-only
"""What the lab itself costs, each beside a floor that is measured in the same run."""
