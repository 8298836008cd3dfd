"""Images of every kind, written by hand where no library writes them, for tests of reading."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
D65, D50 = np.array([0.95047, 1, 1.08883]), np.array([0.96422, 1, 0.82521])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367],
                     [0.0389, -0.0685, 1.0296]])


def to_xyz(primaries) -> np.ndarray:
    """3x3 from linear RGB of these primaries, white D65, to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def coded(linear: np.ndarray) -> np.ndarray:
    """sRGB's code values in [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def in_srgb(pixels: np.ndarray, primaries, gamma: float) -> np.ndarray:
    """What uint8 pixels of another colour space are in sRGB, in levels."""
    linear = (pixels / 255.0) ** gamma @ to_xyz(primaries).T @ np.linalg.inv(to_xyz(SRGB)).T
    return coded(linear) * 255


def icc_profile(primaries, gamma: float) -> bytes:
    """A minimal ICC v2 matrix profile, or with no primaries a grey one."""
    def fixed(values):
        return struct.pack(f">{len(values)}i", *(round(float(v) * 65536) for v in values))
    adapt = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / (BRADFORD @ D65)) @ BRADFORD
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": b"XYZ " + bytes(4) + fixed(D50)}
    if primaries:
        for name, column in zip((b"r", b"g", b"b"), (adapt @ to_xyz(primaries)).T):
            tags |= {name + b"XYZ": b"XYZ " + bytes(4) + fixed(column), name + b"TRC": curve}
    else:
        tags[b"kTRC"] = curve
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    space = b"RGB " if primaries else b"GRAY"
    head = struct.pack(">I4sI4s4s4s12x4s4s", at + len(body), bytes(4), 0x02100000, b"mntr", space,
                       b"XYZ ", b"acsp", bytes(4))
    head += bytes(68 - len(head)) + fixed(D50) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def saved(image: Image.Image, kind: str, **options) -> bytes:
    """An image in a format of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(side: int = 24) -> np.ndarray:
    """An uint8 image of many colours, none of them beyond sRGB in a wider space."""
    x, y = np.meshgrid(np.linspace(60, 200, side), np.linspace(60, 200, side))
    return np.stack([x, y, (x + y[::-1]) / 2], -1).astype(np.uint8)
