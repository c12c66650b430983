import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from sorter import podium, rank


def row(name, score):
    return {"name": name, "score": score}


class TestSorter(unittest.TestCase):
    def test_highest_score_first(self):
        rows = [row("a", 1), row("b", 3), row("c", 2)]
        self.assertEqual([r["score"] for r in rank(rows)], [3, 2, 1])

    def test_equal_scores_by_name(self):
        rows = [row("mia", 5), row("ada", 5), row("zoe", 5)]
        self.assertEqual([r["name"] for r in rank(rows)], ["ada", "mia", "zoe"])

    def test_equal_rows_keep_their_order(self):
        rows = [{"name": "a", "score": 1, "seen": 1}, {"name": "a", "score": 1, "seen": 2}]
        self.assertEqual([r["seen"] for r in rank(rows)], [1, 2])

    def test_negative_scores(self):
        rows = [row("a", -3), row("b", 0), row("c", -1)]
        self.assertEqual([r["name"] for r in rank(rows)], ["b", "c", "a"])

    def test_podium_names_the_best_three(self):
        rows = [row("a", 10), row("b", 40), row("c", 20), row("d", 30)]
        self.assertEqual(podium(rows), ["b", "d", "c"])

    def test_empty(self):
        self.assertEqual(rank([]), [])


if __name__ == "__main__":
    unittest.main()
