# SPDX-License-Identifier: MIT
"""What the tests of `check` share, whatever the format: an image is broken in one way, a look finds
it and changes nothing, and a repair mends it, or leaves what it cannot mend alone."""
import contextlib
import json

from harm import Harm
from peers import platter, sha256


def checker(fmt):
    def check(image, *options, code=0):
        """The answer, and what was said beside it."""
        done = platter("check", "--output=json", *options, "-f", fmt, image, code=code)
        return json.loads(done.stdout), done.stderr
    return check


def both(*harms):
    def harm(image):
        for one in harms:
            answer = one(image)
            if answer is not None:
                image[:] = answer
    return harm


def append(data):
    return lambda image: image.extend(data)


def without(raw, unit, lost):
    """The content of a disk some units of which read as zeros."""
    out = bytearray(raw)
    for number in lost:
        n = max(0, min(unit, len(out) - number * unit))
        out[number * unit:number * unit + n] = bytes(n)
    return out


def write(name, data):
    with open(name, "wb") as f:
        f.write(data)
    return name


class Checks(Harm):
    """`check` is the class's own: staticmethod(checker(...))."""

    @contextlib.contextmanager
    def unchanged(self, image, why):
        before = sha256(image)
        yield
        self.assertEqual(sha256(image), before, why)

    def sees(self, image, code, words):
        """A look changes nothing, and says what is wrong."""
        with self.unchanged(image, "a look changed the image"):
            answer, said = self.check(image, code=code)
        for word in words:
            self.assertRegex(said, word)
        return answer

    def is_left_alone(self, image, code=2):
        with self.unchanged(image, "what cannot be mended was changed"):
            self.check(image, "-r", "all", code=code)

    def is_clean(self, image, *options):
        answer, said = self.check(image, *options)
        self.assertEqual(set(answer) & {"corruptions", "leaks", "findings"}, set(), answer)
        return answer
