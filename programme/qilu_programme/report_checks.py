"""Two tables of the report beside the targets: how deep enterprises go, and whether another province's counts
have the shape of the fitted curves. HTML without a frame."""

from __future__ import annotations

from html import escape

from qilu_programme import elsewhere
from qilu_programme.counts import STARS
from qilu_programme.runs import Ensemble

_DEPTH = (
    "one kind of cloud action",
    "two kinds",
    "three kinds",
    "all four kinds",
    "all four kinds for a year or longer",
)


def depth(ensemble: Ensemble) -> str:
    """Enterprises on cloud at the end of 2022, by stars."""
    counts = ensemble.stars()
    total = max(sum(counts), 1)
    rows = "".join(
        f'<tr><th scope="row">{"★" * (index + 1)} <span class="soft">{_DEPTH[index]}</span></th>'
        f'<td class="n"><b>{counts[index]:,}</b></td><td class="n soft">{counts[index] / total:.1%}</td></tr>'
        for index in range(STARS)
    )
    return (
        '<table class="tight"><thead><tr><th>Depth</th><th class="n">enterprises</th><th class="n">share</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
        '<p class="note">Jiangsu rates enterprises on cloud by stars. The criteria behind a star are assumed '
        "here: kinds of action in use.</p>"
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
