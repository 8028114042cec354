"""Make one HTML page out of what a report knows: no other file, no request, none of the run's text as markup.

The template escapes every value; the pyramids travel as JSON in which `<`, `>`, `&` and `'` are escaped, and
the page puts words in place as text. A content security policy lets only the page's own script run, known by
its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from pipelines.evaluation import report_view
from pipelines.evaluation.report_data import RunData
from pipelines.evaluation.report_view import SamplePictures

TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    run: RunData,
    pictures: Sequence[SamplePictures],
    *,
    num_ranked_layers: int = 0,
    notices: Sequence[str] = (),
) -> str:
    """Write the page.

    Args:
        run: The run.
        pictures: Its samples, in the order of the page.
        num_ranked_layers: Top layers whose words are one ranked list for the whole picture.
        notices: Sentences a reader should know first, e.g. why no picture could be decoded.

    Returns:
        HTML, whole.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["grouped"] = report_view.grouped
    environment.filters["count_of"] = report_view.count_of
    layers = report_view.layer_views(run, num_ranked_layers)
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        run=run,
        name=report_view.short_name(run.location),
        layers=layers,
        notices=notices,
        num_ranked_layers=num_ranked_layers,
        facts=report_view.facts(run, pictures),
        samples=[report_view.sample_view(run, layers, sample) for sample in pictures],
        usage_rows=report_view.usage_rows(run),
        quality_rows=report_view.quality_rows(run, pictures),
        provenance=report_view.provenance(run),
        pyramids=report_view.pyramids(run, layers, pictures),
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{script_hash}",
    )
