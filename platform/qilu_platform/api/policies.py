"""What-if routes: policies computed with the programme's model."""

from __future__ import annotations

from fastapi import APIRouter, Response

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, Reader, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.models.policy import ModelOut, OutcomeOut, PolicyIn
from qilu_platform.monitoring.policies import ModelBusy, ModelFailed

router = APIRouter(prefix="/v1/what-if", tags=["programme"], responses=PROBLEMS)


@router.get("", response_model=ModelOut)
async def get_model(runtime: RuntimeDep, _caller: Reader) -> Response:
    """Whether this platform can compute outcomes."""
    return answer({"available": runtime.model is not None})


@router.post("", response_model=OutcomeOut, responses=NOT_FOUND)
async def compute_outcome(runtime: RuntimeDep, _caller: Reader, body: PolicyIn) -> Response:
    """The outcome of a policy on the programme's model, within seconds; at once if it was computed before."""
    if runtime.model is None:
        raise Problem(
            404,
            "This platform has no model of the programme: `qilu up` starts one that has, and "
            "`qilu programme compare` needs none.",
        )
    policy = body.model_dump(exclude_none=True)
    try:
        return answer(await runtime.model.outcome(policy))
    except ModelBusy as error:
        detail = "Others wait for the model: try again in some seconds."
        raise Problem(503, detail, headers={"Retry-After": "5"}) from error
    except ModelFailed as error:
        raise Problem(503, f"The model gave no outcome: {error}.") from error
