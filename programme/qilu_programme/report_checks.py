"""Two tables of the report beside the targets: how deep enterprises go, and whether another province's counts
have the shape of the fitted curves. HTML without a frame."""

from __future__ import annotations

from html import escape

from qilu_programme import elsewhere
from qilu_programme.counts import STARS
from qilu_programme.runs import Ensemble

_DEPTH = (
    "services and applications on cloud",
    "equipment on cloud",
    "all four kinds of cloud action for a year or longer",
)


def depth(ensemble: Ensemble) -> str:
    """Enterprises on cloud at the end of 2022, by stars."""
    counts = ensemble.stars()
    total = max(sum(counts), 1)
    rows = "".join(
        f'<tr><th scope="row">{"★" * stars} <span class="soft">{_DEPTH[index]}</span></th>'
        f'<td class="n"><b>{counts[index]:,}</b></td><td class="n soft">{counts[index] / total:.1%}</td></tr>'
        for index, stars in enumerate(STARS)
    )
    return (
        '<table class="tight"><thead><tr><th>Depth</th><th class="n">enterprises</th><th class="n">share</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
        '<p class="note">Jiangsu rates enterprises on cloud with three to five stars. Four require '
        "industrial equipment on cloud (S: notice of the rating, found as a copy). Five require new "
        "applications of data and models as well; a year with all four kinds of cloud action stands for "
        "that (A).</p>"
    )


def other_province() -> str:
    """The prediction of each parameter set for Zhejiang."""
    first, second = elsewhere.POINTS
    rows = "".join(
        f'<tr><th scope="row">{check.set}</th><td class="n">{check.predicted:,}</td>'
        f'<td class="n"><b>{check.reported:,}</b></td><td class="n">{check.ratio:.2f}</td></tr>'
        for check in elsewhere.checks()
    )
    return (
        f'<table class="tight"><thead><tr><th>Set</th><th class="n">predicted for {second.month}</th>'
        '<th class="n">reported</th><th class="n">predicted ÷ reported</th></tr></thead>'
        f'<tbody>{rows}</tbody></table><p class="note">Points that no fit has seen: {first.enterprises:,} '
        f"({escape(first.source)}) and {second.enterprises:,} ({escape(second.source)}). The first sets the "
        "size of the market, the shape of the curve predicts the second.</p>"
    )
