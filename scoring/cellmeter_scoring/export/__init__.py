"""A log for other programs: JSON lines, CSV, and OpenTelemetry traces.

Invariant: what goes out has passed the redaction that the log's bodies have passed, and a number that was not measured
is null, empty or absent, never 0.
"""

from cellmeter_scoring.export.rows import to_csv, to_jsonl
from cellmeter_scoring.export.traces import to_otel

__all__ = ["to_csv", "to_jsonl", "to_otel"]
