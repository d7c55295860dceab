"""Errors, typed by what the caller does about them."""

from __future__ import annotations

from enum import StrEnum


class QiluError(Exception):
    """Base of all our errors. Its text is one sentence for users: what is wrong, where, how to fix it."""


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
    """Remarks for the owner of a unit about a reading that was stored, completely or in part. The list is
    short and fixed; words that `Reason` shares have the same meaning here.
    """

    UNKNOWN_SIGNAL = "unknown_signal"
    WRONG_TYPE = "wrong_type"
    BAD_QUALITY = "bad_quality"
    TRANSIENT = "transient"
    NO_VALUE = "no_value"
    OUT_OF_RANGE = "out_of_range"
    OTHER_UNIT = "other_unit"
    SEQUENCE_GAP = "sequence_gap"


class BadReading(QiluError):
    """A topic, payload or reading that cannot be accepted: it goes to the dead letters under `reason`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class StoreError(QiluError):
    """Base of errors of a store, for a failed write or query."""


class Retryable(StoreError):
    """The store is unavailable, busy or hanging: keep the points and retry, not before `retry_after_s` if
    given."""

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Denied(Retryable):
    """The store rejects our credentials (401/403): keep the points, log an error, and retry slowly."""


class TooLarge(StoreError):
    """The store requires smaller batches (413): split and write again."""


class Rejected(StoreError):
    """The store refuses at least one point of the batch and will refuse it again. The good points of the
    batch may or may not be stored: write them again one by one, or in halves; writing twice stores once.
    `points`: how many it refuses, where it says so.
    """

    def __init__(self, detail: str, points: int | None = None) -> None:
        super().__init__(detail)
        self.points = points
