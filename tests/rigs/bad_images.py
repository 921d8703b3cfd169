"""Every odd and bad input that a dataset holds, as bytes, made on the spot.

`GOOD` and `BAD` list them by name: a file name to store it under, the function that makes it, and for BAD
the `ImageError` kind that decoding gives. Personal facts in the EXIF are the constants in `SECRETS`.
"""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable

import cv2
import jpeglib
import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

SERIAL, OWNER, MAKER = b"SERIAL-4711-0815", b"Jane Q. Owner", b"MAKERNOTE-of-a-camera"
COMMENT, XMP_NAME, TAIL = b"a comment about Jane", b"xmp-creator-Jane", b"MOTION-PHOTO-VIDEO"
SECRETS = (SERIAL, OWNER, MAKER, COMMENT, XMP_NAME, TAIL, b"\xff\xd8\xff\xe0thumb", b"GPS-MAP-DATUM")

Pixels = npt.NDArray[np.uint8]


def scene(width: int = 96, height: int = 64, seed: int = 0) -> Pixels:
    """HWC uint8 RGB: smooth colours, some noise, a bright box; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(x / 17 + k) * np.cos(y / 13 - k) for k in range(3)]
    out = np.stack(planes, axis=2) + rng.normal(0, 6, (height, width, 3))
    out[height // 4 : height // 2, width // 4 : width // 2] = (250, 240, 30)
    return np.clip(out, 0, 255).astype(np.uint8)


def save(picture: Image.Image, name: str, **options: object) -> bytes:
    """The bytes that Pillow writes."""
    out = io.BytesIO()
    picture.save(out, name, **options)
    return out.getvalue()


def picture(mode: str = "RGB", width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """`scene` as a Pillow image; alpha is a ramp with fully transparent pixels."""
    image = Image.fromarray(scene(width, height, seed))
    if mode in ("RGBA", "LA"):
        ramp = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
        image = image.convert(mode)
        image.putalpha(Image.fromarray(ramp))
        return image
    return image.convert(mode)


def jpeg(**options: object) -> bytes:
    """A JPEG by Pillow: quality, subsampling (0, 1, 2), progressive, restart_marker_blocks, ..."""
    return save(picture(), "JPEG", **{"quality": 88, **options})


def jpeg_sampled(factors: list[tuple[int, int]], width: int = 96, height: int = 64) -> bytes:
    """A JPEG with any (vertical, horizontal) sampling factors: 4:1:1 is [(1, 4), (1, 1), (1, 1)]."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.jpg")
        result = jpeglib.from_spatial(scene(width, height))
        result.samp_factor = np.array(factors)
        result.write_spatial(path, qt=85)
        with open(path, "rb") as file:
            return file.read()


def arithmetic_jpeg() -> bytes:
    """An arithmetic-coded JPEG (SOF9)."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.jpg")
        with open(path, "wb") as file:
            file.write(jpeg(subsampling=2))
        jpeglib.version.set("turbo210")
        jpeglib.read_dct(path).write_dct(path + ".out", flags=["+ARITH_CODE"])
        with open(path + ".out", "rb") as file:
            return file.read()


def cmyk_jpeg() -> bytes:
    """A four-colour JPEG with an Adobe marker."""
    return save(picture("CMYK"), "JPEG", quality=88)


def rgb_jpeg() -> bytes:
    """A JPEG whose components are red, green, blue (Adobe transform 0)."""
    return save(picture(), "JPEG", quality=88, keep_rgb=True)


def no_jfif_jpeg() -> bytes:
    """A JPEG that starts with its tables, without any APPn segment."""
    data = jpeg()
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


def segment(marker: int, payload: bytes) -> bytes:
    """One JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


Field = tuple[int, int, int, bytes]


def exif_block(
    orientation: int = 6, order: str = ">", more: list[Field] | None = None, *, thumbnail: bool = True
) -> bytes:
    """EXIF with camera, orientation, owner, serial, MakerNote, GPS and a thumbnail directory."""
    pad = b"\0"
    exposure = struct.pack(order + "II", 1, 250)
    exif = [
        (0x829A, 5, 1, exposure),
        (0x9003, 2, 20, b"2024:05:06 07:08:09\0"),
        (0x927C, 7, len(MAKER), MAKER),
        (0xA430, 2, len(OWNER) + 1, OWNER + pad),
        (0xA431, 2, len(SERIAL) + 1, SERIAL + pad),
        (0xA001, 3, 1, struct.pack(order + "H", 1)),
    ]
    position = struct.pack(order + "6I", 48, 1, 8, 1, 1500, 100)
    gps = [(1, 2, 2, b"N\0"), (2, 5, 3, position), (0x12, 2, 14, b"GPS-MAP-DATUM\0")]
    first = [
        (0x010F, 2, 6, b"Maker\0"),
        (0x0110, 2, 10, b"Model 100\0"),
        (0x0112, 3, 1, struct.pack(order + "H", orientation)),
        (0x011A, 5, 1, struct.pack(order + "II", 300, 1)),
        (0x011B, 5, 1, struct.pack(order + "II", 300, 1)),
        (0x0128, 3, 1, struct.pack(order + "H", 2)),
        (0x013B, 2, len(OWNER) + 1, OWNER + pad),
        *(more or []),
    ]
    thumb = b"\xff\xd8\xff\xe0thumb" + bytes(40) if thumbnail else b""
    return _exif(order, first, exif, gps, thumb)


def _exif(order: str, first: list[Field], exif: list[Field], gps: list[Field], thumb: bytes) -> bytes:
    def size(entries: list[Field]) -> int:
        return 6 + 12 * len(entries) + sum(len(e[3]) + len(e[3]) % 2 for e in entries if len(e[3]) > 4)

    def table(entries: list[Field], at: int, following: int) -> bytes:
        out, values = struct.pack(order + "H", len(entries)), b""
        for tag, kind, count, value in sorted(entries):
            cell = value.ljust(4, b"\0")
            if len(value) > 4:
                cell = struct.pack(order + "I", at + 6 + 12 * len(entries) + len(values))
                values += value + b"\0" * (len(value) % 2)
            out += struct.pack(order + "HHI", tag, kind, count) + cell
        return out + struct.pack(order + "I", following) + values

    first = [*first, (0x8769, 4, 1, b"\0" * 4), (0x8825, 4, 1, b"\0" * 4)]
    at_exif = 8 + size(first)
    at_gps = at_exif + size(exif)
    at_second = at_gps + size(gps)
    at_thumb = at_second + 6 + 12 * 3
    first[-2:] = [
        (0x8769, 4, 1, struct.pack(order + "I", at_exif)),
        (0x8825, 4, 1, struct.pack(order + "I", at_gps)),
    ]
    second = [
        (0x0103, 3, 1, struct.pack(order + "H", 6)),
        (0x0201, 4, 1, struct.pack(order + "I", at_thumb)),
        (0x0202, 4, 1, struct.pack(order + "I", len(thumb))),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body = table(first, 8, at_second if thumb else 0) + table(exif, at_exif, 0) + table(gps, at_gps, 0)
    if not thumb:
        return head + body
    return head + body + table(second, at_second, 0) + thumb


def telling_jpeg(orientation: int = 6, **options: object) -> bytes:
    """A rotated JPEG with EXIF (see `exif_block`), XMP, IPTC, MPF, ICC, comment and trailing video."""
    data = jpeg(**{"icc_profile": icc(), "dpi": (300, 300), **options})
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + XMP_NAME + b"</x:xmpmeta>"
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x12\x1c\x02\x50\0\x0d" + OWNER + b"\0"
    extra = (
        segment(0xE1, b"Exif\0\0" + exif_block(orientation))
        + segment(0xE1, xmp)
        + segment(0xE2, b"MPF\0II*\0" + bytes(16))
        + segment(0xED, iptc)
        + segment(0xFE, COMMENT)
    )
    after_jfif = 4 + int.from_bytes(data[4:6], "big")
    return data[:after_jfif] + extra + data[after_jfif:] + TAIL


def telling_png(orientation: int = 6) -> bytes:
    """A PNG with eXIf, text chunks, XMP, time, ICC and resolution."""
    data = save(picture(), "PNG", icc_profile=icc(), dpi=(300, 300))
    extra = png_chunk(b"eXIf", exif_block(orientation)) + png_chunk(b"tEXt", b"Author\0" + OWNER)
    extra += png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(COMMENT))
    extra += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_NAME)
    extra += png_chunk(b"tIME", struct.pack(">HBBBBB", 2024, 5, 6, 7, 8, 9))
    return data[:33] + extra + data[33:] + TAIL


def telling_webp(*, lossless: bool = True, orientation: int = 6) -> bytes:
    """A WebP with EXIF, XMP and ICC."""
    options = {"exif": exif_block(orientation), "xmp": XMP_NAME, "icc_profile": icc()}
    return save(picture(), "WEBP", lossless=lossless, **options)


def telling_tiff(orientation: int = 1) -> bytes:
    """A TIFF with artist, description, serial number, MakerNote, GPS, XMP, ICC and resolution."""
    order = "<"
    pixels = scene()
    height, width = pixels.shape[:2]
    extra = [
        (0x010E, 2, len(COMMENT) + 1, COMMENT + b"\0"),
        (0x02BC, 1, len(XMP_NAME), XMP_NAME),
        (0x8773, 7, len(icc()), icc()),
    ]
    sizes = {0x0100: width, 0x0101: height, 0x0103: 1, 0x0106: 2, 0x0115: 3, 0x0116: height}
    extra += [(tag, 3, 1, struct.pack("<H", value)) for tag, value in sizes.items()]
    extra += [(0x0102, 3, 3, struct.pack("<HHH", 8, 8, 8)), (0x0117, 4, 1, struct.pack("<I", pixels.nbytes))]
    block = exif_block(orientation, order, [*extra, (0x0111, 4, 1, bytes(4))], thumbnail=False)
    where = struct.pack("<I", len(block))
    return exif_block(orientation, order, [*extra, (0x0111, 4, 1, where)], thumbnail=False) + pixels.tobytes()


def telling_avif(orientation: int = 6) -> bytes:
    """An AVIF with EXIF, XMP and ICC."""
    return save(picture(), "AVIF", exif=exif_block(orientation), xmp=XMP_NAME, icc_profile=icc(), quality=80)


def telling_heic(orientation: int = 6) -> bytes:
    """A HEIC with EXIF, XMP, ICC, a thumbnail, and a box of a phone's own at its end."""
    result = pillow_heif.from_pillow(picture(width=192, height=128))
    out = io.BytesIO()
    block = b"Exif\0\0" + exif_block(orientation)
    pillow_heif.options.THUMBNAILS = True
    result.save(out, quality=80, exif=block, xmp=XMP_NAME, icc_profile=icc(), thumbnails=[64])
    return out.getvalue() + struct.pack(">I", 8 + len(TAIL)) + b"mpvd" + TAIL


def avif10() -> bytes:
    """An AVIF of 10 bits by OpenCV."""
    done, out = cv2.imencode(".avif", deep()[..., ::-1] >> 6, [cv2.IMWRITE_AVIF_DEPTH, 10])
    assert done
    return out.tobytes()


def heic10() -> bytes:
    """A HEIC of 10 bits."""
    array, out = deep(), io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (array.shape[1], array.shape[0]), array.tobytes()).save(out, quality=80)
    return out.getvalue()


def alpha_bmp() -> bytes:
    """A BMP whose header (version 5) names an alpha channel."""
    pixels = np.asarray(picture("RGBA"))[::-1]
    height, width = pixels.shape[:2]
    body = pixels[..., [2, 1, 0, 3]].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    head += struct.pack("<5I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, 0x73524742)
    start = 14 + 124
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head.ljust(124, b"\0") + body


def telling_gif() -> bytes:
    """A one-frame GIF with a comment."""
    return save(picture("P"), "GIF", comment=COMMENT)


def icc() -> bytes:
    """An sRGB profile."""
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep(mode: str = "RGB") -> npt.NDArray[np.uint16]:
    """HWC uint16 whose low bytes matter."""
    rng = np.random.default_rng(3)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    wide = scene().astype(np.uint16) * 256
    wide = np.concatenate([wide, wide[..., :1]], axis=2)[..., :channels]
    return wide + rng.integers(0, 256, wide.shape).astype(np.uint16)


def png16(mode: str = "RGB") -> bytes:
    """A 16-bit PNG in 'L', 'LA', 'RGB' or 'RGBA'."""
    array = deep(mode)
    height, width = array.shape[:2]
    kind = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}[mode]
    rows = array.astype(">u2").reshape(height, -1).view(np.uint8)
    body = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def tiff16(mode: str = "RGB") -> bytes:
    """A 16-bit TIFF by OpenCV in 'L' or 'RGB'."""
    array = deep(mode)
    done, out = cv2.imencode(".tiff", array[..., ::-1] if mode == "RGB" else array)
    assert done
    return out.tobytes()


def palette_alpha_png() -> bytes:
    """A palette PNG whose entries have different transparencies."""
    image = picture().quantize(32)
    return save(image, "PNG", transparency=bytes(range(0, 256, 8)))


def colour_key_png() -> bytes:
    """An RGB PNG with one colour declared transparent."""
    return save(picture(), "PNG", transparency=(250, 240, 30))


def animated(name: str) -> bytes:
    """A two-frame 'GIF', 'WEBP' or 'PNG'."""
    return save(picture(), name, save_all=True, append_images=[picture(seed=1)], duration=50)


def multipage_tiff() -> bytes:
    """A TIFF of two pages."""
    return save(picture(), "TIFF", save_all=True, append_images=[picture(seed=1)])


def bomb_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few bytes whose header declares a huge image."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + body + png_chunk(b"IEND", b"")


def bomb_jpeg() -> bytes:
    """A JPEG whose frame header declares 65500 x 65500 pixels."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def bomb_webp() -> bytes:
    """A WebP whose canvas is declared 16384 x 16384."""
    data = bytearray(save(picture("RGBA"), "WEBP"))
    data[24:30] = b"\xff\x3f\0\xff\x3f\0"
    return bytes(data)


def bomb_gif() -> bytes:
    """A GIF whose screen is declared 65535 x 65535."""
    data = bytearray(save(picture("P"), "GIF"))
    data[6:10] = b"\xff\xff\xff\xff"
    return bytes(data)


def truncated_jpeg() -> bytes:
    """The first half of a JPEG."""
    data = jpeg()
    return data[: len(data) // 2]


def truncated_png() -> bytes:
    """The first half of a PNG."""
    data = save(picture(), "PNG")
    return data[: len(data) // 2]


def broken_png() -> bytes:
    """A PNG whose pixel data does not inflate, with right checksums."""
    head = bomb_png(96, 64)[:33]
    return head + png_chunk(b"IDAT", b"x\x9c" + b"\xff" * 60) + png_chunk(b"IEND", b"")


def jpeg_12_bit() -> bytes:
    """A JPEG whose frame header declares 12 bits per sample."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, 12
    return bytes(data)


def tiff_float() -> bytes:
    """A TIFF of 32-bit floats."""
    return save(Image.fromarray(scene()[..., 0].astype(np.float32)), "TIFF")


Maker = Callable[[], bytes]
BAD: dict[str, tuple[str, Maker, str]] = {
    "zero bytes": ("zero.jpg", lambda: b"", "empty"),
    "text named .jpg": ("text.jpg", lambda: b"this is not a picture\n" * 20, "not_an_image"),
    "two bytes": ("two.jpg", lambda: b"\xff\xd8", "not_an_image"),
    "jpeg of four bytes": ("four.jpg", lambda: b"\xff\xd8\xff\xe0", "truncated"),
    "truncated jpeg": ("truncated.jpg", truncated_jpeg, "truncated"),
    "truncated png": ("truncated.png", truncated_png, "truncated"),
    "broken png": ("broken.png", broken_png, "corrupt"),
    "png bomb": ("bomb.png", bomb_png, "too_large"),
    "jpeg bomb": ("bomb.jpg", bomb_jpeg, "too_large"),
    "webp bomb": ("bomb.webp", bomb_webp, "too_large"),
    "gif bomb": ("bomb.gif", bomb_gif, "too_large"),
    "animated gif": ("moving.gif", lambda: animated("GIF"), "animated"),
    "animated webp": ("moving.webp", lambda: animated("WEBP"), "animated"),
    "animated png": ("moving.png", lambda: animated("PNG"), "animated"),
    "multi-page tiff": ("pages.tif", multipage_tiff, "multipage"),
    "float tiff": ("float.tif", tiff_float, "unsupported"),
    "12-bit jpeg": ("twelve.jpg", jpeg_12_bit, "unsupported"),
    "animated avif": ("moving.avif", lambda: animated("AVIF"), "animated"),
    "heic of two pictures": ("two.heic", lambda: animated("HEIF"), "multipage"),
    "cut heic": ("cut.heic", lambda: telling_heic()[:-500], "truncated"),
    "jpeg 2000": ("a.jp2", lambda: save(picture(), "JPEG2000"), "unsupported"),
}
GOOD: dict[str, tuple[str, Maker]] = {
    "jpeg 4:4:4": ("444.jpg", lambda: jpeg(subsampling=0)),
    "jpeg 4:2:2": ("422.JPG", lambda: jpeg(subsampling=1)),
    "jpeg 4:2:0": ("420.jpeg", lambda: jpeg(subsampling=2)),
    "jpeg 4:1:1": ("411.jpg", lambda: jpeg_sampled([(1, 4), (1, 1), (1, 1)])),
    "jpeg 4:4:0": ("440.jpg", lambda: jpeg_sampled([(2, 1), (1, 1), (1, 1)])),
    "jpeg 4:1:0": ("410.jpg", lambda: jpeg_sampled([(2, 4), (1, 1), (1, 1)])),
    "jpeg odd size": ("odd.jpg", lambda: save(picture(width=61, height=43), "JPEG", subsampling=2)),
    "jpeg grey": ("grey.jpg", lambda: save(picture("L"), "JPEG")),
    "jpeg progressive": ("progressive.jpg", lambda: jpeg(progressive=True)),
    "jpeg progressive grey": ("pgrey.jpg", lambda: save(picture("L"), "JPEG", progressive=True)),
    "jpeg restarts": ("restarts.jpg", lambda: jpeg(restart_marker_blocks=3)),
    "jpeg progressive restarts": ("prst.jpg", lambda: jpeg(progressive=True, restart_marker_blocks=5)),
    "jpeg cmyk": ("cmyk.jpg", cmyk_jpeg),
    "jpeg rgb": ("rgb.jpg", rgb_jpeg),
    "jpeg without jfif": ("plain.jpg", no_jfif_jpeg),
    "jpeg arithmetic": ("arithmetic.jpg", arithmetic_jpeg),
    "jpeg rotated, telling": ("rotated.jpg", telling_jpeg),
    "jpeg named png": ("liar.png", jpeg),
    "jpeg 1x1": ("one.jpg", lambda: save(picture(width=1, height=1), "JPEG")),
    "png": ("plain.png", lambda: save(picture(), "PNG")),
    "png 1x1": ("one.png", lambda: save(picture(width=1, height=1), "PNG")),
    "png grey": ("grey.png", lambda: save(picture("L"), "PNG")),
    "png grey alpha": ("la.png", lambda: save(picture("LA"), "PNG")),
    "png alpha": ("rgba.png", lambda: save(picture("RGBA"), "PNG")),
    "png bilevel": ("one_bit.png", lambda: save(picture("1"), "PNG")),
    "png palette": ("palette.png", lambda: save(picture().quantize(64), "PNG")),
    "png palette alpha": ("palette_alpha.png", palette_alpha_png),
    "png colour key": ("key.png", colour_key_png),
    "png 16 rgb": ("rgb16.png", png16),
    "png 16 grey": ("l16.png", lambda: png16("L")),
    "png 16 grey alpha": ("la16.png", lambda: png16("LA")),
    "png 16 rgb alpha": ("rgba16.png", lambda: png16("RGBA")),
    "png rotated, telling": ("rotated.png", telling_png),
    "webp lossy": ("lossy.webp", lambda: save(picture(), "WEBP", quality=80)),
    "webp lossless": ("lossless.webp", lambda: save(picture(), "WEBP", lossless=True)),
    "webp alpha": ("alpha.webp", lambda: save(picture("RGBA"), "WEBP", quality=80)),
    "webp rotated, telling": ("rotated.webp", telling_webp),
    "tiff": ("plain.tif", lambda: save(picture(), "TIFF")),
    "tiff lzw, telling": ("telling.tiff", telling_tiff),
    "tiff jpeg": ("jpeg.tif", lambda: save(picture(), "TIFF", compression="jpeg")),
    "tiff grey": ("grey.tif", lambda: save(picture("L"), "TIFF")),
    "tiff cmyk": ("cmyk.tif", lambda: save(picture("CMYK"), "TIFF")),
    "tiff alpha": ("rgba.tif", lambda: save(picture("RGBA"), "TIFF")),
    "tiff palette": ("palette.tif", lambda: save(picture("P"), "TIFF")),
    "tiff 16 rgb": ("rgb16.tif", tiff16),
    "tiff 16 grey": ("l16.tif", lambda: tiff16("L")),
    "bmp": ("plain.bmp", lambda: save(picture(), "BMP")),
    "bmp alpha": ("alpha.bmp", alpha_bmp),
    "bmp grey": ("grey.bmp", lambda: save(picture("L"), "BMP")),
    "bmp palette": ("palette.bmp", lambda: save(picture("P"), "BMP")),
    "avif": ("plain.avif", lambda: save(picture(), "AVIF", quality=80)),
    "avif grey": ("grey.avif", lambda: save(picture("L"), "AVIF")),
    "avif alpha": ("alpha.avif", lambda: save(picture("RGBA"), "AVIF", quality=80)),
    "avif 10 bit": ("ten.avif", avif10),
    "avif rotated, telling": ("rotated.avif", telling_avif),
    "heic": ("plain.heic", lambda: save(picture(), "HEIF", quality=80)),
    "heic grey": ("grey.heic", lambda: save(picture("L"), "HEIF")),
    "heic alpha": ("alpha.HEIC", lambda: save(picture("RGBA"), "HEIF")),
    "heic 10 bit": ("ten.heic", heic10),
    "heic rotated, telling": ("rotated.heic", telling_heic),
    "gif": ("plain.gif", telling_gif),
    "gif transparent": ("clear.gif", lambda: save(picture().quantize(16), "GIF", transparency=3)),
}
