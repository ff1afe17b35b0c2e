import json
import unittest

from my_plugin import header


class Options(unittest.TestCase):
    def refused(self, words: str, **options):
        with self.assertRaisesRegex(ValueError, words):
            header(json.dumps(options))

    def test_a_header_that_http_allows_is_taken_as_it_is(self):
        self.assertEqual(header('{"name":"x-env","value":"say \\"hi\\"\\t"}'), ("x-env", 'say "hi"\t'))
        self.assertEqual(header('{"name":"x-empty","value":""}'), ("x-empty", ""))

    def test_mistakes_are_named(self):
        self.refused("^`name` must be")
        self.refused("^`name` must be", name="x y", value="a")
        self.refused("^`name` must be", name=1, value="a")
        self.refused("gateway itself", name="Content-Length", value="1")
        self.refused("^`value` must be a text", name="x")
        self.refused("^`value` must be a text", name="x", value=1)
        self.refused("control character", name="x", value="a\r\nb: c")
        self.refused("unknown field `nme`", nme="x")


if __name__ == "__main__":
    unittest.main()
