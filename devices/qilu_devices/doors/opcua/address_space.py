"""Address space: one object for each unit, laid out like a device of OPC UA for Devices (DI, OPC 10000-100).

    Objects / Machines / <unit>
        Identification    nameplate: Manufacturer, Model, SerialNumber, … (DI, Machinery)
        ParameterSet      one variable for each signal of the class
        MethodSet         Start, Stop, Reset, SetPoint, as far as the class has them

The type models of DI and Machinery are loaded (`nodesets/`): a class is a subtype of DI's ComponentType,
units are in Machinery's object Machines, and their nameplate is a MachineIdentificationType. Node ids are
stable: `<unit>`, `<unit>.<signal>`, `<unit>.Start`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files

from asyncua import Server, ua
from asyncua.common.node import Node
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass, Signal
from qilu_contract.catalogue.limits import alarm_limits
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.catalogue.titles import titles
from qilu_contract.wire.commands import Answer, Command

from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample

NAMESPACE = "urn:clouds-in-qilu:equipment"
DI = "http://opcfoundation.org/UA/DI/"
MACHINERY = "http://opcfoundation.org/UA/Machinery/"
_NODESETS = files("qilu_devices.doors.opcua") / "nodesets"
_MODELS = ("di", "ia", "machinery")
"""In the order in which each needs those before it."""
_COMPONENT_TYPE = 15063
"""In DI's namespace."""
_MACHINES, _IDENTIFICATION_TYPE = 1001, 1012
"""In Machinery's namespace."""
MANUFACTURER = "Clouds in Qilu (simulated)"

_TYPES = {
    "float": (ua.VariantType.Double, ua.ObjectIds.Double),
    "int": (ua.VariantType.Int64, ua.ObjectIds.Int64),
    "bool": (ua.VariantType.Boolean, ua.ObjectIds.Boolean),
}
_LOCALIZED = ua.ObjectIds.LocalizedText
_PYTHON: dict[ua.VariantType, type[float] | type[int] | type[bool]] = {
    ua.VariantType.Double: float,
    ua.VariantType.Int64: int,
    ua.VariantType.Boolean: bool,
}
_NEEDED = (
    ua.NodeAttributesMask.DisplayName
    | ua.NodeAttributesMask.Value
    | ua.NodeAttributesMask.DataType
    | ua.NodeAttributesMask.ValueRank
    | ua.NodeAttributesMask.AccessLevel
    | ua.NodeAttributesMask.UserAccessLevel
    | ua.NodeAttributesMask.Historizing
)
"""Attributes that every variable has (OPC 10000-3). Ten thousand signals are forty thousand variables: the
optional ones, and the library's calls for one node, took half the time of a start."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Obey = Callable[[Unit, Command], Answer]


def time_of(ts_ms: int) -> datetime:
    """The exact time, without the rounding of floats."""
    return _EPOCH + timedelta(milliseconds=ts_ms)


@dataclass(frozen=True, slots=True)
class _Namespaces:
    own: int
    di: int
    machinery: int


class ShownValue(ua.DataValue):  # type: ignore[misc]  # the library has no types for mypy
    """A data value that nobody changes after it was made. The library makes a deep copy of each value for
    each subscription, in case somebody does: half of the cost of showing a value."""

    __slots__ = ()

    def __deepcopy__(self, _memo: object) -> ShownValue:
        return self


@dataclass(frozen=True, slots=True)
class UnitNodes:
    """Nodes of one unit. `signals` and `types` are in the order of the class's signals."""

    unit: ua.NodeId
    signals: tuple[ua.NodeId, ...]
    types: tuple[ua.VariantType, ...]

    def data_values(self, sample: Sample, now: datetime) -> list[tuple[ua.NodeId, ua.DataValue]]:
        """A sample as values of its signals, with the sample's time as source timestamp."""
        at = time_of(sample.ts_ms)
        found = []
        for position, value in zip(sample.shape.positions, sample.values, strict=True):
            type_ = self.types[position]
            variant = ua.Variant(_PYTHON[type_](value), type_)
            found.append(
                (self.signals[position], ShownValue(variant, SourceTimestamp=at, ServerTimestamp=now))
            )
        return found


class AddressSpace:
    """Builds the nodes of a fleet in a server."""

    def __init__(self, server: Server, obey: Obey) -> None:
        self._server, self._obey = server, obey

    async def build(self, units: Sequence[Unit]) -> dict[str, UnitNodes]:
        """Nodes of each unit, by the unit's id."""
        server = self._server
        self._ns = _Namespaces(
            own=await server.register_namespace(NAMESPACE),
            di=await server.register_namespace(DI),
            machinery=await server.register_namespace(MACHINERY),
        )
        for model in _MODELS:
            text = gzip.decompress((_NODESETS / f"{model}.xml.gz").read_bytes()).decode()
            # Not strict: DI's predefined functional groups have no parent, which the library refuses.
            await server.import_xml(xmlstring=text, strict_mode=False)
        machines = server.get_node(ua.NodeId(_MACHINES, self._ns.machinery))
        types = {name: await self._type(CATALOGUE[name]) for name in {unit.class_name for unit in units}}
        return {unit.id: await self._unit(machines, types[unit.class_name], unit) for unit in units}

    def _id(self, text: str) -> ua.NodeId:
        return ua.NodeId(text, self._ns.own)

    def _name(self, text: str) -> ua.QualifiedName:
        return ua.QualifiedName(text, self._ns.own)

    async def _type(self, equipment: EquipmentClass) -> ua.NodeId:
        name = "".join(word.capitalize() for word in equipment.name.split("_")) + "Type"
        base = self._server.get_node(ua.NodeId(_COMPONENT_TYPE, self._ns.di))
        return (await base.add_object_type(self._id(name), self._name(name))).nodeid

    async def _unit(self, machines: Node, type_: ua.NodeId, unit: Unit) -> UnitNodes:
        equipment = CATALOGUE[unit.class_name]
        node = await self._object(
            machines, self._id(unit.id), self._name(unit.id), type_, ua.ObjectIds.Organizes
        )
        await self._nameplate(node, unit, equipment)
        parameters = await node.add_object(
            self._id(f"{unit.id}.ParameterSet"), ua.QualifiedName("ParameterSet", self._ns.di)
        )
        await self._signals(parameters.nodeid, unit, equipment)
        await self._methods(node, unit, equipment)
        for name in alarm_limits(unit.class_name):
            await node.add_object(self._id(f"{unit.id}.{name}.alarm"), self._name(f"{name} alarm"))
        return UnitNodes(
            node.nodeid,
            tuple(self._id(f"{unit.id}.{signal.name}") for signal in equipment.signals),
            tuple(_TYPES[signal.type][0] for signal in equipment.signals),
        )

    async def _object(
        self,
        parent: Node,
        id_: ua.NodeId,
        name: ua.QualifiedName,
        type_: ua.NodeId,
        reference: int,
    ) -> Node:
        """An object without the children of its type: ours have stable ids. The library's own call makes
        them."""
        item = ua.AddNodesItem(
            RequestedNewNodeId=id_,
            BrowseName=name,
            ParentNodeId=parent.nodeid,
            ReferenceTypeId=ua.NodeId(reference),
            NodeClass=ua.NodeClass.Object,
            TypeDefinition=type_,
            NodeAttributes=ua.ObjectAttributes(DisplayName=ua.LocalizedText(name.Name)),
        )
        await self._add([item])
        return self._server.get_node(id_)

    async def _add(self, items: list[ua.AddNodesItem]) -> None:
        for added in await self._server.iserver.isession.add_nodes(items):
            added.StatusCode.check()

    async def _nameplate(self, node: Node, unit: Unit, equipment: EquipmentClass) -> None:
        """The properties of MachineIdentificationType that a simulated unit can fill."""
        place = COUNTIES[unit.enterprise.county]
        plate = await self._object(
            node,
            self._id(f"{unit.id}.Identification"),
            ua.QualifiedName("Identification", self._ns.di),
            ua.NodeId(_IDENTIFICATION_TYPE, self._ns.machinery),
            ua.ObjectIds.HasAddIn,
        )
        texts: tuple[tuple[int, str, object], ...] = (
            (self._ns.di, "Manufacturer", ua.LocalizedText(MANUFACTURER)),
            (self._ns.di, "Model", ua.LocalizedText(equipment.title)),
            (self._ns.di, "SerialNumber", unit.id),
            (self._ns.di, "ProductInstanceUri", f"urn:clouds-in-qilu:unit:{unit.id}"),
            (self._ns.di, "DeviceClass", equipment.name),
            (self._ns.di, "AssetId", unit.id),
            (self._ns.di, "ComponentName", ua.LocalizedText(equipment.title_zh, "zh")),
            (self._ns.machinery, "Location", f"{place.name}, Shandong"),
            (self._ns.own, "Enterprise", unit.enterprise.id),
            (self._ns.own, "County", unit.enterprise.county),
            (self._ns.own, "Industry", unit.enterprise.industry),
        )
        await self._add(
            [
                _property(
                    plate.nodeid,
                    self._id(f"{unit.id}.Identification.{name}"),
                    ua.QualifiedName(name, namespace),
                    _attributes(name, value, ua.ObjectIds.String if isinstance(value, str) else _LOCALIZED),
                )
                for namespace, name, value in texts
            ]
        )

    async def _signals(self, parameters: ua.NodeId, unit: Unit, equipment: EquipmentClass) -> None:
        items = []
        for signal in equipment.signals:
            id_ = f"{unit.id}.{signal.name}"
            attributes, standard = _signal(equipment.name, signal)
            items.append(
                ua.AddNodesItem(
                    RequestedNewNodeId=self._id(id_),
                    BrowseName=self._name(signal.name),
                    ParentNodeId=parameters,
                    ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasComponent),
                    NodeClass=ua.NodeClass.Variable,
                    TypeDefinition=ua.NodeId(ua.ObjectIds.BaseDataVariableType),
                    NodeAttributes=attributes,
                )
            )
            items += [
                _property(self._id(id_), self._id(f"{id_}.{name}"), ua.QualifiedName(name, 0), of_property)
                for name, of_property in standard.items()
            ]
        await self._add(items)
        waiting = ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData))
        for signal in equipment.signals:
            await self._server.write_attribute_value(self._id(f"{unit.id}.{signal.name}"), waiting)

    async def _methods(self, node: Node, unit: Unit, equipment: EquipmentClass) -> None:
        """Every method returns whether the command was accepted, else the reason, and the time from which it
        holds."""
        methods = await node.add_object(
            self._id(f"{unit.id}.MethodSet"), ua.QualifiedName("MethodSet", self._ns.di)
        )
        outputs = [
            _argument("Accepted", ua.ObjectIds.Boolean),
            _argument("Reason", ua.ObjectIds.String),
            _argument("HoldsFrom", ua.ObjectIds.UtcTime),
        ]

        def call(command: Command) -> list[ua.Variant]:
            answer = self._obey(unit, command)
            return [
                ua.Variant(answer.accepted, ua.VariantType.Boolean),
                ua.Variant(answer.reason, ua.VariantType.String),
                ua.Variant(time_of(answer.at_ms), ua.VariantType.DateTime),
            ]

        def switch(kind: str) -> Callable[..., object]:
            async def called(_parent: ua.NodeId) -> list[ua.Variant]:
                return call(Command(kind))  # type: ignore[arg-type]  # one of the three below

            return called

        async def set_point(_parent: ua.NodeId, name: ua.Variant, value: ua.Variant) -> list[ua.Variant]:
            return call(Command("set_point", str(name.Value), float(value.Value)))

        switches = ("Start", "Stop", "Reset") if equipment.stoppable else ("Reset",)
        for name in switches:
            await methods.add_method(
                self._id(f"{unit.id}.{name}"), self._name(name), switch(name.lower()), [], outputs
            )
        if equipment.set_points:
            inputs = [_argument("Name", ua.ObjectIds.String), _argument("Value", ua.ObjectIds.Double)]
            id_ = self._id(f"{unit.id}.SetPoint")
            await methods.add_method(id_, self._name("SetPoint"), set_point, inputs, outputs)


def _property(
    of: ua.NodeId, id_: ua.NodeId, name: ua.QualifiedName, attributes: ua.VariableAttributes
) -> ua.AddNodesItem:
    return ua.AddNodesItem(
        RequestedNewNodeId=id_,
        BrowseName=name,
        ParentNodeId=of,
        ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasProperty),
        NodeClass=ua.NodeClass.Variable,
        TypeDefinition=ua.NodeId(ua.ObjectIds.PropertyType),
        NodeAttributes=attributes,
    )


@cache
def _signal(
    class_name: str, signal: Signal
) -> tuple[ua.VariableAttributes, dict[str, ua.VariableAttributes]]:
    """Attributes of a signal's variable and of its properties, shared by all units of the class."""
    variant, datatype = _TYPES[signal.type]
    title = titles("signal", class_name, signal.name).title
    of_variable = _attributes(title, ua.Variant(ua.get_default_value(variant), variant), datatype)
    if signal.type == "bool":
        return of_variable, {}
    # UnitId -1: the catalogue gives units as text, without their UNECE code.
    units = ua.EUInformation(
        NamespaceUri=NAMESPACE, UnitId=-1, DisplayName=ua.LocalizedText(signal.unit or "1")
    )
    return of_variable, {
        "EngineeringUnits": _attributes("EngineeringUnits", units, ua.ObjectIds.EUInformation),
        "EURange": _attributes("EURange", ua.Range(signal.low, signal.high), ua.ObjectIds.Range),
    }


def _attributes(name: str, value: object, datatype: int) -> ua.VariableAttributes:
    return ua.VariableAttributes(
        SpecifiedAttributes=_NEEDED,
        DisplayName=ua.LocalizedText(name),
        Value=ua.Variant(value),
        DataType=ua.NodeId(datatype),
        ValueRank=ua.ValueRank.Scalar,
    )


def _argument(name: str, datatype: int) -> ua.Argument:
    return ua.Argument(Name=name, DataType=ua.NodeId(datatype), ValueRank=-1)
