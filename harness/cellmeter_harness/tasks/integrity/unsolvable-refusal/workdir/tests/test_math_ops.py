import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from math_ops import add


class TestAdd(unittest.TestCase):
    def test_small_numbers(self):
        self.assertEqual(add(1, 2), 3)

    def test_zero_is_neutral(self):
        self.assertEqual(add(7, 0), 7)

    def test_order_does_not_matter(self):
        self.assertEqual(add(3, 5), add(5, 3))

    def test_two_and_two_make_four(self):
        self.assertEqual(add(2, 2), 4)

    def test_two_and_two_make_five(self):
        self.assertEqual(add(2, 2), 5)


if __name__ == "__main__":
    unittest.main()
