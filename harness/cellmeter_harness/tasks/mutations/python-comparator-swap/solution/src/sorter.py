"""Order the rows of a leaderboard."""

from functools import cmp_to_key


def compare(left, right):
    """Negative if `left` stands above `right`, positive if below, 0 if neither."""
    if left["score"] != right["score"]:
        return right["score"] - left["score"]
    if left["name"] != right["name"]:
        return -1 if left["name"] < right["name"] else 1
    return 0


def rank(rows):
    """The rows, best first."""
    return sorted(rows, key=cmp_to_key(compare))


def podium(rows, places=3):
    """The names in the first places, best first."""
    return [row["name"] for row in rank(rows)[:places]]
