# SPDX-License-Identifier: MIT
"""A writer of VMA archives for tests, after vma.md alone: any order, any gaps, any nonsense."""
import hashlib
import struct

BLOCK, CLUSTER, SLOTS = 4096, 65536, 59
UUID = bytes(range(16))


def blob(data):
    return struct.pack("<H", len(data)) + data


def header(devices, configs, pad=512):
    """devices: {id: (name, size)}; configs: [(name, content)]."""
    blobs, names, data, infos = b"\0", bytearray(1024), bytearray(1024), bytearray(8192)
    for i, (name, content) in enumerate(configs):
        struct.pack_into(">I", names, i * 4, len(blobs))
        blobs += blob(name.encode() + b"\0")
        struct.pack_into(">I", data, i * 4, len(blobs))
        blobs += blob(content)
    for i, (name, size) in devices.items():
        struct.pack_into(">I4xQ", infos, i * 32, len(blobs), size)
        blobs += blob(name.encode() + b"\0")
    used, size = len(blobs), -(-len(blobs) // pad) * pad + 12288
    fixed = struct.pack(">4sI16sq16xIII1984x", b"VMA\0", 1, UUID, 1700000000, 12288, used, size)
    whole = (fixed + names + data + bytes(4) + infos + blobs).ljust(size, b"\0")
    return whole[:32] + hashlib.md5(whole).digest() + whole[48:]


def extent(slots):
    """slots: [(device, cluster, data of 64 KiB or less, full)]; None: one that is not used."""
    infos, stored = b"", []
    for slot in slots:
        mask = 0
        if slot:
            device, cluster, data, full = slot
            data = data.ljust(CLUSTER, b"\0")
            for k in range(16):
                block = data[k * BLOCK:(k + 1) * BLOCK]
                if full or block.strip(b"\0"):
                    mask |= 1 << k
                    stored.append(block)
        infos += struct.pack(">HxBI", mask, device, cluster) if slot else bytes(8)
    head = struct.pack(">4sHH16s16x", b"VMAE", 0, len(stored), UUID) + infos.ljust(SLOTS * 8, b"\0")
    return head[:24] + hashlib.md5(head).digest() + head[40:] + b"".join(stored)


def clusters(device, path, full=False):
    with open(path, "rb") as f:
        i = 0
        while data := f.read(CLUSTER):
            yield device, i, data, full
            i += 1


def archive(path, devices, slots, configs=(("qemu-server.conf", b"memory: 512\n"),), per=58, pad=512):
    slots = list(slots)
    with open(path, "wb") as f:
        f.write(header(devices, configs, pad))
        for at in range(0, len(slots), per):
            f.write(extent(slots[at:at + per]))
    return path


def seal(path, at, length):
    """The checksum of the header there, or of the extent, made anew."""
    md5 = at + (32 if at == 0 else 24)
    with open(path, "r+b") as f:
        f.seek(md5)
        f.write(bytes(16))
        f.seek(at)
        whole = f.read(length)
        f.seek(md5)
        f.write(hashlib.md5(whole).digest())


def index(data, devices):
    """The index of an archive's bytes, after docs/vma-index.md; `devices` as for header()."""
    runs, counts, samples, n = {}, {}, [], 0
    off = struct.unpack_from(">I", data, 56)[0]
    while off < len(data):
        places = []
        for i in range(SLOTS):
            _, device, cluster = struct.unpack_from(">HxBI", data, off + 40 + i * 8)
            if device and cluster < -(-devices[device][1] // CLUSTER):
                places.append((device, cluster))
        for device, cluster in places:
            counts[device] = counts.get(device, 0) + 1
            runs.setdefault((device, cluster >> 12), {})[cluster & 4095] = off
        samples += [off] if places else []
        off += 512 + BLOCK * struct.unpack_from(">H", data, off + 6)[0]
        n += 1
    directory, pieces = b"", b""
    for (device, number), piece in sorted(runs.items()):
        packed, last = [], None
        for at in sorted(piece):
            if last and last[2] == piece[at] and last[0] + last[1] == at:
                last[1] += 1
            else:
                last = [at, 1, piece[at]]
                packed.append(last)
        packed = b"".join(struct.pack(">HHQ", *run) for run in packed)
        directory += struct.pack(">BxHIQ", device, len(packed) // 12, number,
                                 4096 + 32 * len(runs) + len(pieces))
        directory += hashlib.sha256(packed).digest()[:16]
        pieces += packed
    most = min(8, len(samples))
    chosen = [samples[i * (len(samples) - 1) // max(most - 1, 1)] for i in range(most)]
    head = struct.pack(">8sII16s16sQQQQ32x", b"VMAINDEX", 1, 0, data[8:24], data[32:48], len(data), n,
                       len(runs), 4096 + len(directory) + len(pieces))
    head += b"".join(struct.pack(">Q", at) + data[at + 24:at + 40] for at in chosen).ljust(192, b"\0")
    head += b"".join(struct.pack(">Q", counts.get(i, 0)) for i in range(256))
    head = head.ljust(4096, b"\0")
    return head[:80] + hashlib.sha256(head + directory).digest() + head[112:] + directory + pieces
