import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from reverse import reverse


class TestReverse(unittest.TestCase):
    def test_word(self):
        self.assertEqual(reverse("drawer"), "reward")

    def test_empty(self):
        self.assertEqual(reverse(""), "")

    def test_spaces_inside(self):
        self.assertEqual(reverse("one two"), "owt eno")

    def test_spaces_at_the_ends(self):
        self.assertEqual(reverse("  ab\t\n"), "\n\tba  ")

    def test_accent_stays_with_its_letter(self):
        self.assertEqual(reverse("cafe\u0301s"), "se\u0301fac")

    def test_marks_keep_their_order(self):
        self.assertEqual(reverse("xa\u0323\u0302y"), "ya\u0323\u0302x")


if __name__ == "__main__":
    unittest.main()
