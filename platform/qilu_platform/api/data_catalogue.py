"""Routes of the data catalogue: data sets with their quality, data products, and all of it as DCAT."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.wire.ids import ID_PATTERN
from sqlalchemy import Connection

from qilu_platform.api.common import (
    CONFLICT,
    NOT_FOUND,
    PROBLEMS,
    TOO_LARGE,
    Owner,
    Reader,
    RuntimeDep,
    answer,
)
from qilu_platform.api.periods import LongQuestions, period_ms
from qilu_platform.api.problems import Problem
from qilu_platform.api.readings import asking
from qilu_platform.assets import dcat, products, quality
from qilu_platform.assets.data_sets import DataSet, columns, data_set, described, lineage, present
from qilu_platform.errors import NotFound
from qilu_platform.models.bodies import Body
from qilu_platform.models.fields import ClassName, Id, Name, PlaceCode, Text, TsMs
from qilu_platform.registry import audit_log

router = APIRouter(prefix="/v1/catalogue", tags=["data catalogue"], responses=PROBLEMS)

DataSetId = Annotated[str, Path(max_length=80, description="<class>.<place>, such as motor.370200")]
Place = Annotated[PlaceCode, Query(description="Code of the province, a city or a county.")]

_QUESTIONS = LongQuestions("questions about data sets")
_VERSION = r"^[0-9]+(\.[0-9]+){0,2}$"
_LD_JSON: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "DCAT in JSON-LD.",
        "content": {"application/ld+json": {"schema": {"type": "object"}}},
    }
}


class DataSetOut(BaseModel):
    id: str
    title: str
    title_zh: str
    class_: str = Field(alias="class")
    place: str
    place_name: str
    place_name_zh: str
    interval_s: int
    licence: str | None = Field(description="Null: none was granted.")


class DataSetsOut(BaseModel):
    items: list[DataSetOut]


class ColumnOut(BaseModel):
    name: str
    type: Literal["text", "time", "float", "int", "bool"]
    title: str
    title_zh: str
    unit: str | None
    resolution: float | None
    low: float | None
    high: float | None
    interval_s: int | None
    mark: str | None = Field(description="Of the figures' source: S, C, N or A.")


class LineageOut(BaseModel):
    simulated: int = Field(description="Units of simulated fleets.")
    measured: int = Field(description="Units that people registered.")


class WholeDataSetOut(DataSetOut):
    units: int = Field(description="On cloud, now or before.")
    lineage: LineageOut
    first_ms: int | None = Field(description="Time of the first reading.")
    columns: list[ColumnOut]
    quality: str = Field(description="Address of the quality figures.")
    export: str = Field(description="Address of the readings as Parquet; add `from` and `to`.")


class QualityOut(BaseModel):
    id: str
    from_ms: int
    to_ms: int = Field(description="Not included itself.")
    due: int = Field(description="Readings that the class's interval calls for.")
    stored: int
    late: int = Field(description="Stored, but after their minute was closed.")
    rolled_until_ms: int = Field(description="`late` is about readings before this time.")
    completeness: float | None = Field(description="Stored of due, at most 1.")
    timeliness: float | None = Field(description="Share of the stored ones that were not late.")
    refused: dict[str, int] = Field(
        description="Readings of the data set's units that gateways refused, by reason, since ever. "
        "`unknown_signal` and `wrong_type` include readings that were stored without the value in question."
    )
    refused_unassigned: dict[str, int] = Field(
        description="The same, of the place, where no registered unit is named."
    )


def _licence(value: str) -> str:
    if not value.startswith(("https://", "http://")) or any(each.isspace() for each in value):
        raise ValueError("a licence is a URL, such as https://creativecommons.org/licenses/by/4.0/")
    return value


class DataProductIn(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Motors of a steel works, 2026",
                    "version": "1.0",
                    "owner": "370202-e00007",
                    "dataset": "motor.370200",
                    "description": "Readings of 40 motors, one a second.",
                    "terms": "For research; no attempt to identify persons.",
                    "licence": "https://creativecommons.org/licenses/by/4.0/",
                    "from_ms": 1767225600000,
                    "until_ms": 1798761600000,
                }
            ]
        }
    )

    id: Id | None = Field(None, description="Number of a product that gets a new version; else left out.")
    version: str = Field(pattern=_VERSION, max_length=32)
    owner: Id = Field(description="The enterprise whose units are meant.")
    dataset: str = Field(max_length=80, description="<class>.<place>, such as motor.370200")
    name: Name
    description: Annotated[Text, Field(min_length=1, max_length=2_000)]
    terms: Annotated[Text, Field(min_length=1, max_length=2_000, description="Of use.")]
    licence: Annotated[str, Field(max_length=200), AfterValidator(_licence)]
    from_ms: TsMs
    until_ms: TsMs | None = Field(None, description="Not included itself; left out: no end.")

    @model_validator(mode="after")
    def _check_times(self) -> DataProductIn:
        if self.until_ms is not None and self.until_ms <= self.from_ms:
            raise ValueError("until_ms must be after from_ms")
        return self


class DataProductOut(BaseModel):
    id: str
    version: str
    owner: str
    dataset: str
    name: str
    description: str
    terms: str
    licence: str
    from_ms: int
    until_ms: int | None
    registered_ms: int
    export: str = Field(
        description="Address of the readings as Parquet; add `to` where the product has no end."
    )


class DataProductPage(BaseModel):
    items: list[DataProductOut]
    next: str | None


@router.get("", response_class=Response, responses=_LD_JSON)
async def get_catalogue(
    runtime: RuntimeDep, _caller: Reader, request: Request, place: Place = PROVINCE
) -> Response:
    """The data sets of a place, and all data products, as DCAT in JSON-LD (DCAT-AP)."""

    def work(connection: Connection) -> tuple[list[DataSet], list[dict[str, Any]]]:
        listed = products.page(connection, None, None, None, products.MAX_PRODUCTS)
        return present(connection, place, None), listed["items"]

    sets, listed = await runtime.database.read(work)
    base = str(request.base_url).rstrip("/")
    body = dcat.catalogue(base, sets, listed, runtime.settings.data_licence)
    return Response(msgspec.json.encode(body), media_type="application/ld+json")


@router.get("/datasets", response_model=DataSetsOut)
async def list_datasets(
    runtime: RuntimeDep,
    _caller: Reader,
    place: Place = PROVINCE,
    class_: Annotated[ClassName | None, Query(alias="class")] = None,
) -> Response:
    """The data sets of a place, one for each class that has units on cloud there."""
    found = await runtime.database.read(lambda connection: present(connection, place, class_))
    licence = {"licence": runtime.settings.data_licence}
    return answer({"items": [described(each) | licence for each in found]})


@router.get("/datasets/{id}", response_model=WholeDataSetOut, responses=NOT_FOUND)
async def get_dataset(runtime: RuntimeDep, _caller: Reader, id: DataSetId) -> Response:
    """A data set with its columns, and where its readings come from."""
    data = data_set(id)
    async with _QUESTIONS:
        origin = await runtime.database.read(lambda connection: lineage(connection, data))
    return answer(
        described(data)
        | origin
        | {
            "licence": runtime.settings.data_licence,
            "columns": columns(data),
            "quality": f"/v1/catalogue/datasets/{data.id}/quality",
            "export": f"/v1/export/readings?{data.export_filter}&format=parquet",
        }
    )


@router.get("/datasets/{id}/quality", response_model=QualityOut, responses=NOT_FOUND)
async def get_quality(
    runtime: RuntimeDep,
    _caller: Reader,
    id: DataSetId,
    from_: Annotated[
        str | None, Query(alias="from", description="RFC 3339 or ms; else a day before `to`.")
    ] = None,
    to: Annotated[
        str | None, Query(description="RFC 3339 or ms; else after the latest reading. Not included itself.")
    ] = None,
) -> Response:
    """Completeness, lateness and refused readings of at most 31 days. `from` and `to` are widened to whole
    minutes."""
    data = data_set(id)
    async with _QUESTIONS, asking(runtime) as store:
        end = await quality.end_ms(store, data) if to is None else to
        period = period_ms(from_, end, quality.DAY_MS, quality.MAX_SPAN_MS)
        start_ms, end_ms = quality.whole_minutes(*period)
        counts = await quality.stored(store, data, start_ms, end_ms)

    def work(connection: Connection) -> tuple[int, dict[str, dict[str, int]]]:
        return quality.due(connection, data, start_ms, end_ms), quality.refused(connection, data)

    due, refused = await runtime.database.read(work)
    figures = {"due": due, **counts}
    return answer(
        {"id": data.id, "from_ms": start_ms, "to_ms": end_ms} | figures | quality.shares(figures) | refused
    )


@router.post(
    "/products",
    status_code=201,
    response_model=DataProductOut,
    responses=CONFLICT
    | TOO_LARGE
    | NOT_FOUND
    | {200: {"description": "It was there already, the same.", "model": DataProductOut}},
)
async def create_data_product(runtime: RuntimeDep, caller: Owner, body: DataProductIn) -> Response:
    """Register a data product, or a new version of one. Versions never change. A key of an enterprise
    registers products of its own units."""
    if not caller.sees(body.owner):
        raise Problem(403, f"This key registers data products of {caller.enterprise} only.")

    def work(connection: Connection) -> tuple[dict[str, Any], bool]:
        product, new = products.register(connection, body.row())
        if new:
            subject = f"data products/{product['id']}"
            audit_log.record(connection, caller, "registered", subject, version=product["version"])
        return product, new

    product, new = await runtime.database.write(work)
    location = f"/v1/catalogue/products/{product['id']}/{product['version']}"
    return answer(product, 201 if new else 200, {"Location": location})


@router.get("/products", response_model=DataProductPage)
async def list_data_products(
    runtime: RuntimeDep,
    _caller: Reader,
    owner: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    dataset: Annotated[str | None, Query(max_length=80)] = None,
    cursor: Annotated[str | None, Query(max_length=80, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Data products with all their versions. Every reader sees all of them; the readings need the right to
    them."""
    return answer(
        await runtime.database.read(
            lambda connection: products.page(connection, owner, dataset, cursor, limit)
        )
    )


@router.get("/products/{id}/{version}", response_model=DataProductOut, responses=NOT_FOUND)
async def get_data_product(
    runtime: RuntimeDep,
    _caller: Reader,
    id: Annotated[str, Path(pattern=ID_PATTERN)],
    version: Annotated[str, Path(pattern=_VERSION, max_length=32)],
) -> Response:
    found = await runtime.database.read(lambda connection: products.get(connection, id, version))
    if found is None:
        raise NotFound(f"version {version} of data product {id} does not exist.")
    return answer(found)
