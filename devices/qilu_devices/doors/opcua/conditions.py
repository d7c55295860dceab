"""Alarms and conditions (OPC 10000-9): an ExclusiveLevelAlarm for each limit that a unit's signal breaks.

Events come from the Server object, at the time of the sample. A client acknowledges with the standard method
Acknowledge on the condition. A condition is retained while it is active or not acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from asyncua import Server, ua
from asyncua.server.event_generator import EventGenerator
from qilu_contract.catalogue.limits import Limit

from qilu_devices.doors.alarms import Change, UnitAlarms
from qilu_devices.doors.opcua.address_space import UnitNodes, time_of
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample

SEVERITY = 700
"""Of 1 to 1000; OPC 10000-9 calls 667 and more high (assumed for every alarm of the catalogue)."""


@dataclass(slots=True)
class _Condition:
    limit: Limit
    generator: EventGenerator
    active: bool = False
    acknowledged: bool = True

    async def trigger(self, at: datetime, message: str) -> None:
        """Report the present state."""
        event = self.generator.event
        event.Retain = self.active or not self.acknowledged
        event.Message = ua.LocalizedText(message)
        setattr(event, "ActiveState/Id", self.active)
        event.ActiveState = ua.LocalizedText("Active" if self.active else "Inactive")
        setattr(event, "AckedState/Id", self.acknowledged)
        event.AckedState = ua.LocalizedText("Acknowledged" if self.acknowledged else "Unacknowledged")
        await self.generator.trigger(at)


class Conditions:
    """Conditions of all units of a server."""

    def __init__(self, server: Server, nodes: dict[str, UnitNodes]) -> None:
        self._server, self._nodes = server, nodes
        self._alarms: dict[str, UnitAlarms] = {}
        self._conditions: dict[ua.NodeId, _Condition] = {}

    def bind(self) -> None:
        """Answer the standard method Acknowledge."""
        method = ua.NodeId(ua.ObjectIds.AcknowledgeableConditionType_Acknowledge)
        self._server.iserver.isession.add_method_callback(method, self._acknowledge)

    async def judge(self, sample: Sample) -> None:
        """Raise and clear alarms by a sample."""
        unit = sample.unit
        alarms = self._alarms.get(unit.id)
        if alarms is None:
            alarms = self._alarms[unit.id] = UnitAlarms(unit.class_name)
        for change in alarms.judge(sample):
            await self._report(unit, change)

    async def _report(self, unit: Unit, change: Change) -> None:
        limit = change.limit
        node = self._nodes[unit.id].unit
        id_ = ua.NodeId(f"{unit.id}.{limit.signal}.alarm", node.NamespaceIndex)
        condition = self._conditions.get(id_)
        if condition is None:
            condition = self._conditions[id_] = _Condition(limit, await self._generator(unit, limit, id_))
        condition.active = change.active
        if change.active:
            condition.acknowledged = False
        word = "raised" if change.active else "cleared"
        text = f"{limit.title} {word}: {limit.signal} is {change.value:g}, limit {limit.limit:g}"
        await condition.trigger(time_of(change.since_ms), text)

    async def _generator(self, unit: Unit, limit: Limit, id_: ua.NodeId) -> EventGenerator:
        made = await self._server.get_event_generator(ua.NodeId(ua.ObjectIds.ExclusiveLevelAlarmType))
        event = made.event
        node = self._nodes[unit.id].unit
        event.NodeId = id_
        event.SourceNode, event.SourceName = node, unit.id
        event.InputNode = ua.NodeId(f"{unit.id}.{limit.signal}", node.NamespaceIndex)
        event.ConditionName, event.BranchId = limit.title, ua.NodeId()
        event.ConditionClassId = ua.NodeId(ua.ObjectIds.ProcessConditionClassType)
        event.ConditionClassName = ua.LocalizedText("ProcessConditionClassType")
        event.EnabledState = ua.LocalizedText("Enabled")
        setattr(event, "EnabledState/Id", True)
        event.Quality, event.SuppressedOrShelved = ua.StatusCode(), False
        event.Severity = event.LastSeverity = SEVERITY
        setattr(event, "HighLimit" if limit.kind == "above" else "LowLimit", limit.limit)
        return made

    async def _acknowledge(
        self, condition_id: ua.NodeId, event_id: ua.Variant, comment: ua.Variant
    ) -> ua.StatusCode:
        condition = self._conditions.get(condition_id)
        if condition is None:
            return ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown)
        event = condition.generator.event
        if event_id.Value != event.EventId.Value:
            return ua.StatusCode(ua.StatusCodes.BadEventIdUnknown)
        if condition.acknowledged:
            return ua.StatusCode(ua.StatusCodes.BadConditionBranchAlreadyAcked)
        condition.acknowledged = True
        event.Comment = comment.Value
        await condition.trigger(event.Time, f"{condition.limit.title} acknowledged")
        return ua.StatusCode()
