"""Reverse a text as a reader sees it."""

import unicodedata


def reverse(text):
    """The text from its last letter to its first."""
    letters = []
    for character in text:
        if letters and unicodedata.combining(character):
            letters[-1] += character
        else:
            letters.append(character)
    return "".join(reversed(letters))
