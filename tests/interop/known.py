# SPDX-License-Identifier: MIT
"""A run of the program `identity`, which says by what the files of a disk are known again."""
import json
import os
import subprocess

from peers import Failed


class Known:
    """An open disk."""

    def __init__(self, image, fmt):
        self.process = subprocess.Popen([os.environ["IDENTITY"], image, fmt], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.first = self.process.stdout.readline()
        if not self.first:
            self.said = self.process.communicate(timeout=60)[1]
            raise Failed(self.said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        said = self.process.communicate(timeout=60)[1]
        if self.process.returncode or said:
            raise Failed(f"identity ended with {self.process.returncode}\n{said}")

    def words(self, image=0, file=0):
        """Those of one file."""
        entry = json.loads(self.first)[image]["files"][file]
        return dict(word.split("=", 1) for word in entry["identity"].split(" "))

    def again(self, before="\n"):
        """Whether it is still that: "same", or a sentence."""
        self.process.stdin.write(before)
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def known(image, fmt):
    """The words of the first file, and all that is told as JSON."""
    with Known(image, fmt) as k:
        return k.words(), k.first
