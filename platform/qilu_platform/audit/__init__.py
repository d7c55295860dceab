"""Holds the ledger, the counters and the registry's rows against each other, and repairs what was derived.

The registry's rows are the truth: what stands in them is counted anew, and the columns that follow from other
rows are computed anew. Units are read in a few grouped scans, whatever their number.
"""

from __future__ import annotations

from qilu_platform.audit.comparison import audit
from qilu_platform.audit.findings import Difference, Fault, Finding
from qilu_platform.audit.repairing import repair

__all__ = ["Difference", "Fault", "Finding", "audit", "repair"]
