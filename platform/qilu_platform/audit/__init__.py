"""Audit: compares the ledger, the counters and the registry's rows, and repairs derived data.

The registry's rows are the truth: their content is counted again, and columns derived from other rows are
computed again. Units are read in a few grouped scans, whatever their number.
"""

from __future__ import annotations

from qilu_platform.audit.comparison import audit
from qilu_platform.audit.findings import Difference, Fault, Finding
from qilu_platform.audit.repairing import repair

__all__ = ["Difference", "Fault", "Finding", "audit", "repair"]
