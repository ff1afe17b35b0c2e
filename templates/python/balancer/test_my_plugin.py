import unittest

from my_plugin import NO_OPINION, State, choose, eligible


class Options(unittest.TestCase):
    def test_they_are_checked_by_name(self):
        self.assertEqual(State("{}").by, "inflight")
        self.assertEqual(State('{"by":"latency"}').by, "latency")
        with self.assertRaisesRegex(ValueError, "unknown field `bye`, expected `by`"):
            State('{"bye":"latency"}')
        with self.assertRaisesRegex(ValueError, "`by` is `weight`: it must be"):
            State('{"by":"weight"}')


class Choice(unittest.TestCase):
    def test_weight_0_is_left_out_unless_all_are_0(self):
        self.assertEqual(eligible([0, 3, 0, 1]), [1, 3])
        self.assertEqual(eligible([0, 0]), [0, 1])
        self.assertEqual(eligible([]), [])

    def test_the_less_loaded_of_two_is_picked(self):
        load = [5, 4, 9].__getitem__
        self.assertEqual({choose([0, 1], random, load, None) for random in range(16)}, {1})
        self.assertEqual({choose([0, 1, 2], random, lambda _: 0, None) for random in range(16)}, {0, 1, 2})
        self.assertNotIn(2, {choose([0, 1, 2], random, load, None) for random in range(16)}, "the worst never wins")

    def test_a_retry_goes_elsewhere_and_nothing_to_pick_is_no_opinion(self):
        self.assertEqual(choose([4, 5], 0, lambda _: 0, lambda index: index == 4), 5)
        self.assertEqual(choose([4], 0, lambda _: 0, lambda _: True), NO_OPINION)
        self.assertEqual(choose([], 0, lambda _: 0, None), NO_OPINION)


if __name__ == "__main__":
    unittest.main()
