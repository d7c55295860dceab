"""Rules of vouchers that a policy can have, as the programme's model knows them and the platform asks for."""

from __future__ import annotations

from typing import Literal

RulesName = Literal["default", "guangdong-rules", "guizhou-second-voucher"]
"""Shipped scenarios whose rules and caps of vouchers a policy can have."""
