"""Say in the file that it was edited: the IPTC digital source type, as an XMP packet.

IPTC Photo Metadata Standard, DigitalSourceType, term compositeWithTrainedAlgorithmicMedia: a mix of captured
pixels and of pixels made by a trained model. The packet is always the same bytes, so that the metadata
policies know it and let it pass.
"""

from __future__ import annotations

import re
import struct

from cleanplate.pipeline.images.formats.base import (
    PNG_MAGIC,
    Segment,
    jpeg_segments,
    png_chunk,
    png_chunks,
    webp_chunks,
)
from cleanplate.pipeline.images.formats.table import header

SOURCE_TYPE = b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_ANY_TYPE = re.compile(rb"https?://cv\.iptc\.org/newscodes/digitalsourcetype/\w+")
_PROPERTY = (
    b'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'Iptc4xmpExt:DigitalSourceType="' + SOURCE_TYPE + b'"/>'
)
PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    + _PROPERTY
    + b"</rdf:RDF></x:xmpmeta>"
)
XMP = b"http://ns.adobe.com/xap/1.0/\0"
PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
"""Start of an uncompressed iTXt body that holds XMP."""


def mark(data: bytes, name: str) -> bytes | None:
    """The file with the mark in its XMP; None where it cannot be written: the format holds no XMP (BMP, GIF), or
    the XMP that is there cannot be added to.

    name: 'jpeg', 'png' or 'webp' (`tiff.write_tiff` takes the mark itself).
    """
    if name == "jpeg":
        return _jpeg(data)
    if name == "png":
        return _png(data)
    if name == "webp":
        return _webp(data)
    return None


def marked(packet: bytes | None) -> bytes | None:
    """An XMP packet that says it: `PACKET` for None, else the packet with its own digital source type replaced or
    one more description added. None where it is not RDF in UTF-8."""
    if packet is None:
        return PACKET
    if _ANY_TYPE.search(packet):
        return _ANY_TYPE.sub(SOURCE_TYPE, packet)
    head, end, tail = packet.rpartition(b"</rdf:RDF>")
    return head + _PROPERTY + end + tail if end else None


def _jpeg(data: bytes) -> bytes | None:
    segments, tail = jpeg_segments(data)
    at = next((i for i, s in enumerate(segments) if s.marker == 0xE1 and s.payload.startswith(XMP)), None)
    packet = marked(segments[at].payload[len(XMP) :] if at is not None else None)
    if packet is None or len(XMP) + len(packet) > 65533:
        return None
    parts = [s.to_bytes() for s in segments]
    made = struct.pack(">BBH", 0xFF, 0xE1, len(XMP) + len(packet) + 2) + XMP + packet
    if at is not None:
        parts[at] = made
    else:
        # JFIF wants to be first and Exif next.
        first = 0
        while segments[first].marker == 0xE0 or (
            segments[first].marker == 0xE1 and segments[first].payload[:4] == b"Exif"
        ):
            first += 1
        parts.insert(first, made)
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9" + tail


def _png(data: bytes) -> bytes | None:
    chunks = list(png_chunks(data))
    key = PNG_XMP[:-4]
    at = next((i for i, (kind, body) in enumerate(chunks) if kind == b"iTXt" and body.startswith(key)), None)
    if at is not None and not chunks[at][1].startswith(PNG_XMP):
        return None  # packed, or with a language: nothing that writers of XMP do
    packet = marked(chunks[at][1][len(PNG_XMP) :] if at is not None else None)
    if packet is None:
        return None
    made = (b"iTXt", PNG_XMP + packet)
    if at is not None:
        chunks[at] = made
    else:
        chunks.insert(next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT"), made)
    return PNG_MAGIC + b"".join(png_chunk(kind, body) for kind, body in chunks)


def _webp(data: bytes) -> bytes | None:
    chunks = list(webp_chunks(data))
    packet = marked(next((body for kind, body in chunks if kind == b"XMP "), None))
    if packet is None:
        return None
    chunks = [chunk for chunk in chunks if chunk[0] != b"XMP "]
    if chunks[0][0] != b"VP8X":
        head = header(data)
        # In VP8L the bit behind the two 14-bit sizes says that alpha is used.
        alpha = chunks[0][0] == b"VP8L" and chunks[0][1][4] & 0x10
        size = (head.width - 1).to_bytes(3, "little") + (head.height - 1).to_bytes(3, "little")
        chunks.insert(0, (b"VP8X", bytes([0x10 if alpha else 0, 0, 0, 0]) + size))
    first = chunks[0][1]
    chunks[0] = (b"VP8X", bytes([first[0] | 0x04]) + first[1:])
    chunks.append((b"XMP ", packet))
    return riff(chunks)


def with_exif(data: bytes, name: str, block: bytes) -> bytes:
    """The file with this EXIF block in place of its own. name: 'jpeg', 'png' or 'webp'; a WebP has to be an extended
    one, as each with XMP is."""
    if name == "jpeg":
        segments, tail = jpeg_segments(data)
        kept = [s for s in segments if not (s.marker == 0xE1 and s.payload[:4] == b"Exif")]
        first = 1 if kept and kept[0].marker == 0xE0 else 0
        kept.insert(first, Segment(0xE1, b"Exif\0\0" + block))
        return b"\xff\xd8" + b"".join(s.to_bytes() for s in kept) + b"\xff\xd9" + tail
    if name == "png":
        chunks = [(kind, body) for kind, body in png_chunks(data) if kind != b"eXIf"]
        chunks.insert(1, (b"eXIf", block))
        return PNG_MAGIC + b"".join(png_chunk(kind, body) for kind, body in chunks)
    parts = [(kind, body) for kind, body in webp_chunks(data) if kind != b"EXIF"]
    parts = [(k, bytes([b[0] | 0x08]) + b[1:] if k == b"VP8X" else b) for k, b in parts]
    return riff([*parts, (b"EXIF", block)])


def riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP"
    for kind, part in chunks:
        body += kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body
