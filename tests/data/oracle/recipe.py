"""Deterministic weights/inputs for the LaMa oracle. Depends only on numpy's frozen
RandomState (NEP 19), never on torch RNG: any implementation can regenerate them.

weight recipe  W(key, shape, seed, kind):
  rs = RandomState((crc32(utf8(key)) + seed) % 2**32);  n = rs.standard_normal(prod(shape)).reshape(shape)
  *running_mean            0.20*n                 *running_var     exp(0.30*n)
  1-d *.weight (batchnorm) 1 + 0.20*n             *.bias           0.10*n
  >=2-d *.weight           n*gain/sqrt(fan_in), fan_in = prod(shape[1:]) (ConvTranspose: shape[0]*k*k/4)
  num_batches_tracked      int64 7
  every float is finally rounded to float16 and cast back (so float16 storage is exact)
"""

import zlib

import numpy as np


def _rs(name, seed):
    return np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)


def tensor(key, shape, seed, gain=1.0, transposed=False):
    shape = tuple(shape)
    if key.endswith("num_batches_tracked"):
        return np.array(7, dtype=np.int64)
    n = _rs(key, seed).standard_normal(int(np.prod(shape))).reshape(shape)
    if key.endswith("running_mean"):
        v = 0.20 * n
    elif key.endswith("running_var"):
        v = np.exp(0.30 * n)
    elif key.endswith("bias"):
        v = 0.10 * n
    elif len(shape) == 1:
        v = 1 + 0.20 * n
    else:
        fan = np.prod(shape[1:]) if not transposed else shape[0] * np.prod(shape[2:]) / 4
        v = n * gain / np.sqrt(fan)
    return v.astype(np.float16).astype(np.float32)


def gain_for(key, final_key, final_gain):
    """generator gains: final 7x7 conv has its own (sigmoid must not saturate); convs inside residual
    blocks (keys model.N.conv1/conv2.*) 0.5; everything else 1.4."""
    if key == final_key:
        return final_gain
    return 0.5 if key.split(".")[2] in ("conv1", "conv2") else 1.4


def generator_state(shapes, seed, final_key, final_gain):
    """shapes: {key: shape} in state-dict order; ConvTranspose keys are the 4-d weights whose index
    lies between the last residual block and final_key."""
    fi = int(final_key.split(".")[1])
    out = {}
    for k, s in shapes.items():
        idx = int(k.split(".")[1])
        tr = len(s) == 4 and k.count(".") == 2 and idx < fi
        out[k] = tensor(k, s, seed, gain_for(k, final_key, final_gain), tr)
    return out


def plain_state(shapes, seed, gain=1.4):
    return {k: tensor(k, s, seed, gain) for k, s in shapes.items()}


def image(h, w, seed, n=1):
    """n x 3 x h x w in [0,1], uint8-exact: low-frequency waves + noise."""
    rs = _rs(f"image{h}x{w}", seed)
    y, x = np.mgrid[0:h, 0:w]
    out = np.empty((n, 3, h, w))
    for b in range(n):
        for c in range(3):
            f = rs.uniform(-0.15, 0.15, (6, 2))
            p = rs.uniform(0, 2 * np.pi, 6)
            out[b, c] = sum(np.sin(f[i, 0] * y + f[i, 1] * x + p[i]) for i in range(6)) / 6
    out = 0.5 + 0.4 * out + 0.05 * rs.standard_normal(out.shape)
    return (np.clip(out, 0, 1) * 255).round().astype(np.uint8)


def mask(h, w, seed, n=1):
    """n x 1 x h x w uint8 in {0,255}: three rectangles and one disc per sample."""
    rs = _rs(f"mask{h}x{w}", seed)
    out = np.zeros((n, 1, h, w), np.uint8)
    y, x = np.mgrid[0:h, 0:w]
    for b in range(n):
        for _ in range(3):
            y0, x0 = rs.randint(0, h - 8), rs.randint(0, w - 8)
            out[b, 0, y0 : y0 + rs.randint(4, max(5, h // 3)), x0 : x0 + rs.randint(4, max(5, w // 3))] = 255
        cy, cx, r = rs.randint(0, h), rs.randint(0, w), min(h, w) // 8
        out[b, 0][(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = 255
    return out
