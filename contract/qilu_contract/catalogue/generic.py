"""The generic class, for devices that fit no other: its signals are learned from what its units send.

A unit's signals are numbers; a boolean counts as 0 or 1. All are stored as floats, so that two units never
disagree about a field's type.
"""

from __future__ import annotations

import re
import unicodedata

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import NO_SIGNALS, EquipmentClass

GENERIC = "generic"
REGISTRABLE: dict[str, EquipmentClass] = CATALOGUE | {
    GENERIC: EquipmentClass(GENERIC, "Generic device", "通用设备", (), (), ())
}
"""The classes that a unit may be registered with: those of the catalogue, and the generic one."""

COUNTED = "signal_count"
"""A field of every generic point: the number of its signals. Counting it counts the readings."""
MAX_UNIT_SIGNALS = 64
"""Maximum number of signals of one unit."""
MAX_NAMES = 500
"""Maximum number of different signal names that one gateway accepts: each is a column of the store."""
MAX_NAME = 40

_OTHER = re.compile(r"\W+")
_RESERVED = frozenset((*NO_SIGNALS, COUNTED))


def signal_name(sent: str) -> str:
    """The name under which a signal is stored: lower case, with _ for everything that is neither letter nor
    digit. Metrics of Sparkplug are often named like `Motor/Speed`; DuckDB does not tell cases apart.

    Raises ValueError, which says what a name may be."""
    name = _OTHER.sub("_", unicodedata.normalize("NFKC", sent[: 4 * MAX_NAME]).lower()).strip("_")
    if not is_signal_name(name):
        raise ValueError(
            f"a signal's name begins with a letter, has at most {MAX_NAME} letters, digits and _, "
            f"and is none of {', '.join(sorted(_RESERVED))}"
        )
    return name


def is_signal_name(name: str) -> bool:
    """Whether a signal may be stored under this name."""
    return (
        0 < len(name) <= MAX_NAME
        and name[0].isalpha()
        and name == name.lower()
        and not _OTHER.search(name)
        and name not in _RESERVED
    )
