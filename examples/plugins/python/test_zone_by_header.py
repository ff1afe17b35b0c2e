import unittest

from zone_by_header import NO_OPINION, Zones, header


class Options(unittest.TestCase):
    def test_they_are_checked_by_name(self):
        self.assertEqual(header("{}"), "x-zone")
        self.assertEqual(header('{"header":"X-Region"}'), "x-region")
        with self.assertRaisesRegex(ValueError, "unknown field `heder`"):
            header('{"heder":"a"}')
        with self.assertRaisesRegex(ValueError, "`header` must be"):
            header('{"header":"a b"}')
        with self.assertRaisesRegex(ValueError, "`header` must be"):
            header('{"header":1}')


class Choice(unittest.TestCase):
    def test_the_zone_s_endpoints_take_turns(self):
        zones = Zones([("a", 1), ("b", 1), ("a", 1), ("a", 0)])
        self.assertEqual([zones.pick("a", sequence, None) for sequence in range(4)], [0, 2, 0, 2])
        self.assertEqual([zones.pick("b", sequence, None) for sequence in range(2)], [1, 1])

    def test_without_endpoints_there_all_take_turns(self):
        zones = Zones([("a", 1), ("b", 1)])
        for zone in (None, "", "c"):
            self.assertEqual([zones.pick(zone, sequence, None) for sequence in range(3)], [0, 1, 0])
        self.assertEqual(Zones([]).pick("a", 0, None), NO_OPINION)
        self.assertEqual(Zones([("a", 0), ("a", 0)]).pick("a", 1, None), 1, "all have weight 0: all count")

    def test_a_retry_leaves_the_zone_only_when_that_is_used_up(self):
        zones = Zones([("a", 1), ("b", 1), ("a", 1)])
        self.assertEqual(zones.pick("a", 0, {0}.__contains__), 2)
        self.assertEqual(zones.pick("a", 0, {0, 2}.__contains__), 1)
        self.assertEqual(zones.pick("a", 0, {0, 1, 2}.__contains__), NO_OPINION)


if __name__ == "__main__":
    unittest.main()
