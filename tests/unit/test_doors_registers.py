"""Modbus register maps: what the catalogue becomes in registers, and back."""

from __future__ import annotations

import struct
from itertools import product
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_devices.doors.registers import MAX_READ, Format, Numbers, Order, RegisterMap, Snapshot

FORMATS = [Format(*each) for each in product(get_args(Order), get_args(Numbers))]


@pytest.mark.parametrize("format_", FORMATS, ids=str)
@settings(max_examples=5)
@given(data=st.data())
def test_every_class_comes_back_from_its_registers(format_: Format, data: st.DataObject) -> None:
    for equipment in CATALOGUE.values():
        found = RegisterMap(equipment, format_)
        values = []
        for signal in equipment.signals:
            value = signal.round(data.draw(st.floats(signal.low, signal.high)))
            values.append(float(bool(value)) if signal.type == "bool" else value)
        sample = Snapshot(
            data.draw(st.integers(0, 2**63)), data.draw(st.integers(0, 2**32 - 1)), tuple(values)
        )
        registers = found.encode(sample)
        assert found.decode(registers) == sample
        assert len(registers) == found.size


def test_a_unit_is_read_with_one_request_and_no_registers_overlap() -> None:
    for equipment in CATALOGUE.values():
        for format_ in FORMATS:
            found = RegisterMap(equipment, format_)
            assert found.size <= MAX_READ, equipment.name
            for before, after in zip(found.entries, found.entries[1:], strict=False):
                assert before.address + before.registers <= after.address


def test_byte_orders_are_those_of_their_letters() -> None:
    motor = CATALOGUE["motor"]
    value = motor.signals[0].round(12.345)
    plain = struct.pack(">f", value)
    for order in get_args(Order):
        found = RegisterMap(motor, Format(order))
        entry = found.entries[2]
        registers = found.encode(Snapshot(1, 0, (value, *[0.0] * (len(motor.signals) - 1))))
        wire = struct.pack(">2H", *registers[entry.address : entry.address + 2])
        assert wire == bytes(plain["ABCD".index(letter)] for letter in order)


def test_an_unknown_format_is_refused() -> None:
    for text in ("", "ABDC", "ABCD,", "ABCD,double"):
        if text == "ABCD,":
            assert Format.parse(text) == Format()
            continue
        with pytest.raises(ConfigError, match="no register format"):
            Format.parse(text)
