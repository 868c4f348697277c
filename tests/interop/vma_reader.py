# SPDX-License-Identifier: MIT
"""A strict reader of VMA archives for tests, after vma.md alone: what a careful writer leaves."""
import hashlib
import struct

from vma_writer import BLOCK, CLUSTER, SLOTS


class Broken(AssertionError):
    """The archive is not as the rules say."""


def must(condition, what):
    if not condition:
        raise Broken(what)


def sum_is_right(data, at):
    return hashlib.md5(data[:at] + bytes(16) + data[at + 16:]).digest() == data[at:at + 16]


def read_header(data):
    """(uuid, ctime, configs, {id: (name, size)}, length)"""
    magic, version, uuid, ctime, blobs_at, used, size = struct.unpack_from(">4sI16sq16xIII", data)
    must(magic == b"VMA\0" and version == 1 and blobs_at == 12288 and size % 512 == 0, "header")
    must(sum_is_right(data[:size], 32) and blobs_at + used <= size, "header checksum")
    must(not any(data[60:2044]) and not any(data[4092:4128]) and not any(data[blobs_at + used:size]),
         "reserved bytes")

    def blob(at):
        at += blobs_at
        length = struct.unpack_from("<H", data, at)[0]
        return data[at + 2:at + 2 + length]

    def name(at):
        must(blob(at)[-1:] == b"\0" and blob(at).count(b"\0") == 1, "name")
        return blob(at)[:-1].decode()

    names, contents = (struct.unpack_from(">256I", data, at) for at in (2044, 3068))
    configs = [(name(n), blob(c)) for n, c in zip(names, contents) if n]
    infos = [struct.unpack_from(">IIQ16s", data, 4096 + 32 * i) for i in range(256)]
    must(all(b == 0 and d == bytes(16) for _, b, _, d in infos), "reserved bytes of devices")
    return uuid, ctime, configs, {i: (name(n), s) for i, (n, _, s, _) in enumerate(infos) if n}, size


def read_extent(data, at, uuid):
    """Yields (device, cluster, mask, data) of its slots, and at last its length."""
    head = data[at:at + 512]
    magic, reserved, count, its = struct.unpack_from(">4sHH16s", head)
    must(magic == b"VMAE" and reserved == 0 and its == uuid and sum_is_right(head, 24),
         f"extent at {at}")
    q = at + 512
    for i in range(SLOTS):
        mask, zero, device, cluster = struct.unpack_from(">HBBI", head, 40 + 8 * i)
        must(zero == 0 and (device or not mask and not cluster), f"slot {i} of the extent at {at}")
        if not device:
            continue
        content = bytearray(CLUSTER)
        for k in range(16):
            if mask >> k & 1:
                content[k * BLOCK:(k + 1) * BLOCK] = data[q:q + BLOCK]
                q += BLOCK
        yield device, cluster, mask, bytes(content)
    must(q == at + 512 + count * BLOCK and q <= len(data), f"length of the extent at {at}")
    yield q - at


def read(path):
    """{name: content}, [(config, content)]; of a state all of it. Zero blocks must not be stored (but
    of a state), clusters of each disk ascend and each is there once."""
    with open(path, "rb") as f:
        data = f.read()
    uuid, ctime, configs, devices, at = read_header(data)
    disks = {i: bytearray() for i in devices}
    while at < len(data):
        *slots, length = read_extent(data, at, uuid)
        at += length
        for device, cluster, mask, content in slots:
            name, size = devices[device]
            disk = disks[device]
            must(len(disk) == cluster * CLUSTER, f"cluster {cluster} of {name} does not ascend")
            stored = sum(1 << k for k in range(16) if any(content[k * BLOCK:(k + 1) * BLOCK]))
            must(mask == (0xFFFF if name == "vmstate" else stored), f"mask of {cluster} of {name}")
            must(name == "vmstate" or not any(content[max(0, size - len(disk)):]),
                 f"{name} is not clean behind its end")
            disk += content
    for i, (name, size) in devices.items():
        must(name == "vmstate" or len(disks[i]) == -(-size // CLUSTER) * CLUSTER,
             f"{name} is not complete")
        if name != "vmstate":
            del disks[i][size:]
    return {name: bytes(disks[i]) for i, (name, _) in devices.items()}, configs, uuid, ctime
