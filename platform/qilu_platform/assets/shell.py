"""The Asset Administration Shell of a unit (AAS 3.0), as an AASX package: Nameplate, TechnicalData,
TimeSeries.

The submodels follow the IDTA's templates as far as the registry has what they ask for: it knows no maker,
type or year of construction. Needs the extra `aas`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from basyx.aas import model
from basyx.aas.adapter import aasx
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.catalogue.equipment import Signal
from qilu_contract.catalogue.places import SHANDONG
from qilu_contract.catalogue.titles import titles
from qilu_contract.store import Row

NAMEPLATE = "https://admin-shell.io/zvei/nameplate/2/0/Nameplate"
TECHNICAL_DATA = "https://admin-shell.io/ZVEI/TechnicalData/Submodel/1/2"
TIME_SERIES = "https://admin-shell.io/idta/TimeSeries/1/1"
_NAMESPACE = "https://clouds-in-qilu.example/ids"
_Int: Any = model.datatypes.Int
_Long: Any = model.datatypes.Long
_TYPES = {"float": model.datatypes.Double, "int": _Long, "bool": model.datatypes.Boolean}

Texts = Mapping[str, str]


def package(
    unit: Mapping[str, Any], nameplate: Mapping[str, Any], rows: Sequence[Row], readings_url: str
) -> bytes:
    """The AASX package. `rows`: readings for the internal segment of TimeSeries; `readings_url`: address of
    all others."""
    equipment = CATALOGUE[unit["class"]]
    submodels = [
        _nameplate(unit, nameplate),
        _technical_data(unit, nameplate, equipment),
        _time_series(unit, equipment, rows, readings_url),
    ]
    shell = model.AssetAdministrationShell(
        id_=_id(unit, "aas"),
        id_short=_short(unit["id"]),
        asset_information=model.AssetInformation(
            asset_kind=model.AssetKind.INSTANCE,
            global_asset_id=f"urn:{unit['identifier']}",
            specific_asset_id={
                model.SpecificAssetId(name="industrialInternetIdentifier", value=unit["identifier"]),
                model.SpecificAssetId(name="serialNumber", value=unit["id"]),
            },
        ),
        submodel={model.ModelReference.from_referable(each) for each in submodels},
    )
    everything: model.DictIdentifiableStore[model.Identifiable] = model.DictIdentifiableStore(
        [shell, *submodels]
    )
    file = io.BytesIO()
    with aasx.AASXWriter(file) as writer:
        files = aasx.DictSupplementaryFileContainer()  # type: ignore[no-untyped-call]
        writer.write_aas([shell.id], everything, files)
    return file.getvalue()


def _nameplate(unit: Mapping[str, Any], plate: Mapping[str, Any]) -> model.Submodel:
    uri = f"urn:{unit['identifier']}"
    address = {"city": plate["city"], "county": plate["county"], "province": SHANDONG.name}
    return model.Submodel(
        id_=_id(unit, "nameplate"),
        id_short="Nameplate",
        semantic_id=_semantics(NAMEPLATE),
        submodel_element=[
            _text("URIOfTheProduct", uri),
            _texts(
                "ManufacturerProductDesignation", {"en": plate["designation"], "zh": plate["designation_zh"]}
            ),
            _text("SerialNumber", unit["id"]),
            _text("Operator", plate["enterprise_name"]),
            _text("OperatorId", plate["enterprise"]),
            *([_text("OperatorUscc", plate["uscc"])] if plate["uscc"] else []),
            model.SubmodelElementCollection(
                id_short="Location", value=[_text(name, value) for name, value in address.items()]
            ),
        ],
    )


def _technical_data(
    unit: Mapping[str, Any], plate: Mapping[str, Any], equipment: EquipmentClass
) -> model.Submodel:
    return model.Submodel(
        id_=_id(unit, "technical-data"),
        id_short="TechnicalData",
        semantic_id=_semantics(TECHNICAL_DATA),
        submodel_element=[
            model.SubmodelElementCollection(
                id_short="GeneralInformation",
                value=[
                    _texts(
                        "ManufacturerProductDesignation", {"en": equipment.title, "zh": equipment.title_zh}
                    ),
                    _text("EquipmentClass", equipment.name),
                    _text("Industry", plate["industry"]),
                ],
            ),
            model.SubmodelElementCollection(
                id_short="TechnicalProperties",
                value=[_signal(equipment, each) for each in equipment.signals],
            ),
        ],
    )


def _signal(equipment: EquipmentClass, signal: Signal) -> model.SubmodelElementCollection:
    title = titles("signal", equipment.name, signal.name)
    double = model.datatypes.Double
    figures: list[model.SubmodelElement] = []
    if signal.type != "bool":
        figures = [
            model.Property("Resolution", double, signal.resolution),
            model.Property("Nominal", double, signal.nominal),
            model.Range("PhysicalRange", double, signal.low, signal.high),
        ]
    return model.SubmodelElementCollection(
        id_short=_short(signal.name),
        display_name=model.MultiLanguageNameType({"en": title.title, "zh": title.title_zh}),
        value=[
            *([_text("Unit", signal.unit)] if signal.unit else []),
            *figures,
            model.Property("SamplingIntervalSeconds", _Int, _Int(signal.interval_s)),
        ],
    )


def _time_series(
    unit: Mapping[str, Any], equipment: EquipmentClass, rows: Sequence[Row], readings_url: str
) -> model.Submodel:
    root = "https://admin-shell.io/idta/TimeSeries"
    variables: list[model.SubmodelElement] = [
        model.Property("Time", model.datatypes.DateTime, semantic_id=_semantics(f"{root}/UtcTime/1/1")),
        *(model.Property(_short(each.name), _TYPES[each.type]) for each in equipment.signals),
    ]
    metadata = model.SubmodelElementCollection(
        id_short="Metadata",
        semantic_id=_semantics(f"{root}/Metadata/1/1"),
        value=[
            _texts("Name", {"en": f"Readings of {unit['id']}", "zh": f"{unit['id']} 运行数据"}),
            model.SubmodelElementCollection(
                id_short="Record", semantic_id=_semantics(f"{root}/Record/1/1"), value=variables
            ),
        ],
    )
    linked = model.SubmodelElementCollection(
        id_short="LinkedSegment",
        semantic_id=_semantics(f"{root}/Segments/LinkedSegment/1/1"),
        value=[
            _text("Endpoint", readings_url),
            _text("Query", "from, to, signal, every, fn: see the platform's /openapi.json"),
        ],
    )
    internal = model.SubmodelElementCollection(
        id_short="InternalSegment",
        semantic_id=_semantics(f"{root}/Segments/InternalSegment/1/1"),
        value=[
            model.Property("RecordCount", _Long, _Long(len(rows))),
            model.SubmodelElementCollection(
                id_short="Records",
                semantic_id=_semantics(f"{root}/Records/1/1"),
                value=[_record(equipment, number, row, root) for number, row in enumerate(rows)],
            ),
        ],
    )
    return model.Submodel(
        id_=_id(unit, "time-series"),
        id_short="TimeSeries",
        semantic_id=_semantics(f"{TIME_SERIES}"),
        submodel_element=[
            metadata,
            model.SubmodelElementCollection(
                id_short="Segments",
                semantic_id=_semantics(f"{root}/Segments/1/1"),
                value=[linked, *([internal] if rows else [])],
            ),
        ],
    )


def _record(equipment: EquipmentClass, number: int, row: Row, root: str) -> model.SubmodelElementCollection:
    time = datetime.fromtimestamp(row.ts_ms / 1000, UTC)
    found: Iterable[model.Property] = (
        model.Property(_short(each.name), _TYPES[each.type], _TYPES[each.type](row.values[each.name]))
        for each in equipment.signals
        if row.values.get(each.name) is not None
    )
    return model.SubmodelElementCollection(
        id_short=f"Record{number}",
        semantic_id=_semantics(f"{root}/Record/1/1"),
        value=[
            model.Property(
                "Time", model.datatypes.DateTime, time, semantic_id=_semantics(f"{root}/UtcTime/1/1")
            ),
            *found,
        ],
    )


def _id(unit: Mapping[str, Any], what: str) -> str:
    return f"{_NAMESPACE}/{what}/{unit['id']}"


def _short(name: str) -> str:
    """An idShort: letters, digits and underscores, and a letter first."""
    text = "".join(each if each.isascii() and each.isalnum() else "_" for each in name)
    return text if text[:1].isalpha() else f"unit_{text}".rstrip("_")


def _semantics(address: str) -> model.ExternalReference:
    return model.ExternalReference((model.Key(model.KeyTypes.GLOBAL_REFERENCE, address),))


def _text(name: str, value: str) -> model.Property:
    return model.Property(name, model.datatypes.String, value)


def _texts(name: str, values: Texts) -> model.MultiLanguageProperty:
    return model.MultiLanguageProperty(name, model.MultiLanguageTextType(dict(values)))
