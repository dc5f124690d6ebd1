"""docs/reference/metrics.md: every series of /metrics, from its declaration."""

from __future__ import annotations

from tools.documentation.docstrings import escaped

from inferd.server.observability import series

HEAD = """\
# Metrics

**Task: look up a metric.** The server exports them in Prometheus' text format:

```console
$ curl http://localhost:8000/metrics
```

A counter's name ends in `_total` in the output; a histogram has `_bucket`, `_sum` and `_count`. `process_*` and
`python_info` come from the Prometheus client library. `deploy/` has alert rules and a dashboard. This page is generated
from the source: do not edit it.
"""


def page() -> str:
    """The text of the page."""
    declared = [each for each in vars(series).values() if isinstance(each, series.Series)]
    rows = [
        f"| `{each.name}` | {', '.join(f'`{label}`' for label in each.labels)} | {escaped(each.help)} |"
        for each in sorted(declared, key=lambda each: each.name)
    ]
    return f"{HEAD}\n| series | labels | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
