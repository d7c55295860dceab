"""Errors by what the caller does about them."""

from __future__ import annotations

from enum import StrEnum


class QiluError(Exception):
    """Base of every error of ours. Its text is one sentence for a person: what is wrong, where, how to mend
    it.
    """


class ConfigError(QiluError):
    """The user's input cannot work (setting, scenario, flag). The command line prints it and exits with 2."""


class Reason(StrEnum):
    """Why a reading went to the dead letters. The list is short and fixed: it labels metrics."""

    BAD_TOPIC = "bad_topic"
    BAD_PAYLOAD = "bad_payload"
    TOO_LARGE = "too_large"
    UNKNOWN_UNIT = "unknown_unit"
    WRONG_OWNER = "wrong_owner"
    UNKNOWN_SIGNAL = "unknown_signal"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    BAD_TIMESTAMP = "bad_timestamp"
    NO_BIRTH = "no_birth"
    REFUSED_BY_STORE = "refused_by_store"


class Remark(StrEnum):
    """What the owner of a unit is told about a reading of which all or a part is stored. The list is short
    and fixed; words that `Reason` has, too, mean the same here.
    """

    UNKNOWN_SIGNAL = "unknown_signal"
    WRONG_TYPE = "wrong_type"
    BAD_QUALITY = "bad_quality"
    TRANSIENT = "transient"
    NO_VALUE = "no_value"
    OUT_OF_RANGE = "out_of_range"
    OTHER_UNIT = "other_unit"


class BadReading(QiluError):
    """A topic, payload or reading that cannot be accepted: it goes to the dead letters under `reason`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class StoreError(QiluError):
    """Base of what a store answers when a write or a query fails."""


class Retryable(StoreError):
    """The store is away, busy or hanging: keep the points, try again, not before `retry_after_s` if given."""

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Denied(Retryable):
    """The store refuses our credentials (401/403): keep the points, say so loudly, try again slowly."""


class TooLarge(StoreError):
    """The store wants smaller batches (413): split and write again."""


class Rejected(StoreError):
    """The store refuses at least one point of the batch and will refuse it again. The good points of the
    batch may or may not be stored: write them again one by one, or in halves; writing twice stores once.
    `points`: how many it refuses, where it says so.
    """

    def __init__(self, detail: str, points: int | None = None) -> None:
        super().__init__(detail)
        self.points = points
