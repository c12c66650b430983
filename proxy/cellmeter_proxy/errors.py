"""The one exception whose text is meant for a person.

Everything else that goes wrong is a built-in exception and, if it escapes, a bug.
"""


class CellmeterError(Exception):
    """Show this sentence: what failed, why, and the cure.

    Args:
        message: one sentence without a final period.
        hint: what to type or change next; printed after a blank line as ``hint: …``.
        exit_code: 1 for a failure, 2 for a mistake in what was asked.

    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
