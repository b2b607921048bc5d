"""What a basket costs."""

import unittest

from basket import total


class TotalTest(unittest.TestCase):
    def test_a_small_basket_costs_what_is_in_it(self):
        self.assertEqual(total([(2.50, 4), (1.20, 1)]), 11.20)

    def test_a_large_basket_gets_the_discount(self):
        self.assertEqual(total([(60, 2)]), 108.00)

    def test_the_discount_starts_at_exactly_one_hundred(self):
        self.assertEqual(total([(50, 2)]), 90.00)


if __name__ == "__main__":
    unittest.main()
