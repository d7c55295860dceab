"""The catalogue as DCAT 3 in JSON-LD, with the properties that DCAT-AP requires or recommends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from qilu_platform.assets.data_sets import DataSet, data_set, described, place_names
from qilu_platform.assets.products import export_filter

CONTEXT = {
    "dcat": "http://www.w3.org/ns/dcat#",
    "dct": "http://purl.org/dc/terms/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "owl": "http://www.w3.org/2002/07/owl#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_MEDIA = "https://www.iana.org/assignments/media-types/"
_FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
_CONTINUOUS = "http://publications.europa.eu/resource/authority/frequency/CONT"
_THEME = "http://publications.europa.eu/resource/authority/data-theme/TECH"

Node = dict[str, Any]


def catalogue(
    base: str, sets: Sequence[DataSet], products: Sequence[Mapping[str, Any]], licence: str | None
) -> Node:
    """`base`: address of the platform without a slash at its end. `licence`: of the data sets; None: no
    licence was granted."""
    root = f"{base}/v1/catalogue"
    publisher = {"@id": f"{base}/#publisher", "@type": "foaf:Agent", "foaf:name": "Clouds in Qilu"}
    service = {
        "@id": f"{base}/v1",
        "@type": "dcat:DataService",
        "dct:title": _texts("Clouds in Qilu: HTTP API", "云行齐鲁：数据接口"),
        "dcat:endpointURL": _ref(f"{base}/v1"),
        "dcat:endpointDescription": _ref(f"{base}/openapi.json"),
    }
    found = [_data_set(base, each, licence) for each in sets]
    return {
        "@context": CONTEXT,
        "@id": root,
        "@type": "dcat:Catalog",
        "dct:title": _texts("Clouds in Qilu: data assets", "云行齐鲁：数据资产目录"),
        "dct:description": _texts(
            "Readings of industrial equipment in Shandong, by class and place, and registered data products.",
            "山东省工业设备运行数据，按设备类别和地区编目；已登记的数据产品。",
        ),
        "dct:publisher": publisher,
        "dct:language": _ref("http://publications.europa.eu/resource/authority/language/ENG"),
        "foaf:homepage": {"@id": f"{base}/", "@type": "foaf:Document"},
        "dcat:themeTaxonomy": _ref("http://publications.europa.eu/resource/authority/data-theme"),
        "dcat:service": service,
        "dcat:dataset": [*found, *(_product(base, each) for each in products)],
    }


def _data_set(base: str, data: DataSet, licence: str | None) -> Node:
    about, address = described(data), f"{base}/v1/catalogue/datasets/{data.id}"
    return {
        "@id": address,
        "@type": "dcat:Dataset",
        "dct:identifier": data.id,
        "dct:title": _texts(about["title"], about["title_zh"]),
        "dct:description": _texts(
            f"One row for each reading of a unit, about every {about['interval_s']} s.",
            f"每台设备约每 {about['interval_s']} 秒一条记录。",
        ),
        **_common(base, data),
        "dcat:distribution": [_distribution(address, address, name, licence) for name in _FORMATS],
    }


def _product(base: str, product: Mapping[str, Any]) -> Node:
    address = f"{base}/v1/catalogue/products/{product['id']}/{product['version']}"
    download = f"{base}/v1/export/readings?{export_filter(product)}" if product["until_ms"] else None
    return {
        "@id": address,
        "@type": "dcat:Dataset",
        "dct:identifier": product["id"],
        "dcat:version": product["version"],
        "dct:title": product["name"],
        "dct:description": product["description"],
        "dct:issued": _time(product["registered_ms"]),
        "dct:isPartOf": _ref(f"{base}/v1/catalogue/datasets/{product['dataset']}"),
        "dct:temporal": {
            "@type": "dct:PeriodOfTime",
            "dcat:startDate": _time(product["from_ms"]),
            **({"dcat:endDate": _time(product["until_ms"])} if product["until_ms"] else {}),
        },
        "dct:accessRights": {"@type": "dct:RightsStatement", "rdfs:label": product["terms"]},
        **_common(base, data_set(product["dataset"])),
        "dct:publisher": {
            "@id": f"{base}/v1/enterprises/{product['owner']}",
            "@type": "foaf:Agent",
            "foaf:name": product["owner"],
        },
        "dcat:distribution": [
            _distribution(
                address,
                address,
                name,
                product["licence"],
                None if download is None else f"{download}&format={name}",
            )
            for name in _FORMATS
        ],
    }


def _common(base: str, data: DataSet) -> Node:
    english, chinese = place_names(data.place)
    place = {
        "@id": f"urn:gb-t-2260:{data.place}",
        "@type": "dct:Location",
        "dct:identifier": data.place,
        "rdfs:label": _texts(english, chinese),
    }
    return {
        "dct:spatial": place,
        "dct:publisher": _ref(f"{base}/#publisher"),
        "dct:accrualPeriodicity": _ref(_CONTINUOUS),
        "dcat:theme": _ref(_THEME),
        "dct:provenance": {
            "@type": "dct:ProvenanceStatement",
            "rdfs:label": _texts(
                "Simulated or measured: the data set's page counts the units of each origin.",
                "模拟或实测：数据集页面列出各来源的设备数量。",
            ),
        },
    }


def _distribution(
    address: str, access: str, name: str, licence: str | None, download: str | None = None
) -> Node:
    return {
        "@id": f"{address}#{name}",
        "@type": "dcat:Distribution",
        "dcat:accessURL": _ref(access),
        "dcat:mediaType": {"@id": _MEDIA + _FORMATS[name], "@type": "dct:MediaType"},
        **({"dcat:downloadURL": _ref(download)} if download else {}),
        **({"dct:license": {"@id": licence, "@type": "dct:LicenseDocument"}} if licence else {}),
    }


def _ref(address: str) -> Node:
    return {"@id": address}


def _texts(english: str, chinese: str) -> list[Node]:
    return [{"@value": english, "@language": "en"}, {"@value": chinese, "@language": "zh"}]


def _time(ms: int) -> Node:
    return {"@type": "xsd:dateTime", "@value": datetime.fromtimestamp(ms / 1000, UTC).isoformat()}
