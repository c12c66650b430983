"""Reverse a text as a reader sees it."""


def reverse(text):
    """The text from its last letter to its first."""
    return text.strip()[::-1]
