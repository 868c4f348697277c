# SPDX-License-Identifier: MIT
"""The servers are what the other tests take them for: an S3 that judges signatures, and an RBD."""
import os

import gateway
from peers import Case, main, run, sha256


class Ready(Case):

    def test_gateway(self):
        gateway.put("/ready")
        gateway.put("/ready/an object", b"content")
        self.assertEqual(gateway.get("/ready/an object"), b"content")
        self.assertEqual(gateway.keys("ready"), ["an object"])
        self.assertEqual(gateway.uploads("ready"), [])
        gateway.delete("/ready/an object")
        with self.assertRaises(gateway.Refused) as refused:
            gateway.get("/ready/an object")
        self.assertEqual(refused.exception.status, 404)

    def test_gateway_refuses(self):
        right = gateway.SECRET_KEY
        gateway.SECRET_KEY = right[::-1]
        try:
            with self.assertRaises(gateway.Refused) as refused:
                gateway.put("/other")
        finally:
            gateway.SECRET_KEY = right
        self.assertEqual(refused.exception.status, 403)

    def test_pool(self):
        with open("image", "wb") as f:
            f.write(os.urandom(3 << 20))
        name = f"{os.environ['CEPH_POOL']}/ready"
        run("rbd", "import", "--no-progress", "image", name)
        run("rbd", "export", "--no-progress", name, "back")
        run("rbd", "rm", "--no-progress", name)
        self.assertEqual(sha256("back"), sha256("image"))


main()
