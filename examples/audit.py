"""Tokens per session of a log, and whether every number in the sum was measured.

python examples/audit.py LOG
"""

import sys

from cellmeter_scoring import audit


def main(log: str) -> None:
    """Print one line per session, then what deserves attention."""
    found = audit(log)
    for session in dict.fromkeys(call.session for call in found.calls):
        totals = audit(log, session=session).totals
        prompt, completion = totals.prompt_tokens, totals.completion_tokens
        complete = "complete" if not prompt.missing + completion.missing else f"{prompt.missing} calls without usage"
        print(f"{session}\t{totals.calls} calls\t{prompt.sum} prompt\t{completion.sum} completion\t{complete}")
    for finding in found.findings:
        print(f"{finding.kind}: {finding.message}")


if __name__ == "__main__":
    main(sys.argv[1])
