"""Say in the file that it was edited: the IPTC digital source type, as an XMP packet.

IPTC Photo Metadata Standard, DigitalSourceType, term compositeWithTrainedAlgorithmicMedia: a mix of captured
pixels and of pixels made by a trained model. The packet is always the same bytes, so that the metadata
policies know it and let it pass.
"""

from __future__ import annotations

import struct

from pipeline.formats import PNG_MAGIC, header, jpeg_segments, png_chunk, png_chunks, webp_chunks

PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/'
    b'compositeWithTrainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)
XMP = b"http://ns.adobe.com/xap/1.0/\0"
PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
"""Start of an uncompressed iTXt body that holds XMP."""


def mark(data: bytes, name: str) -> bytes:
    """The file with `PACKET` in it; as it is where it has XMP already or the format holds none.

    name: 'jpeg', 'png' or 'webp' (`tiff.write_tiff` takes the packet itself; BMP and GIF hold none).
    """
    if name == "jpeg":
        return _jpeg(data)
    if name == "png":
        return _png(data)
    if name == "webp":
        return _webp(data)
    return data


def _jpeg(data: bytes) -> bytes:
    segments, tail = jpeg_segments(data)
    if any(s.marker == 0xE1 and s.payload.startswith(XMP) for s in segments):
        return data
    # JFIF wants to be first and Exif next.
    at = 0
    while segments[at].marker == 0xE0 or (
        segments[at].marker == 0xE1 and segments[at].payload[:4] == b"Exif"
    ):
        at += 1
    parts = [s.to_bytes() for s in segments]
    payload = XMP + PACKET
    parts.insert(at, struct.pack(">BBH", 0xFF, 0xE1, len(payload) + 2) + payload)
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9" + tail


def _png(data: bytes) -> bytes:
    chunks = list(png_chunks(data))
    if any(kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0") for kind, body in chunks):
        return data
    at = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    chunks.insert(at, (b"iTXt", PNG_XMP + PACKET))
    return PNG_MAGIC + b"".join(png_chunk(kind, body) for kind, body in chunks)


def _webp(data: bytes) -> bytes:
    chunks = list(webp_chunks(data))
    if any(kind == b"XMP " for kind, _ in chunks):
        return data
    if chunks[0][0] != b"VP8X":
        head = header(data)
        # In VP8L the bit behind the two 14-bit sizes says that alpha is used.
        alpha = chunks[0][0] == b"VP8L" and chunks[0][1][4] & 0x10
        size = (head.width - 1).to_bytes(3, "little") + (head.height - 1).to_bytes(3, "little")
        chunks.insert(0, (b"VP8X", bytes([0x10 if alpha else 0, 0, 0, 0]) + size))
    first = chunks[0][1]
    chunks[0] = (b"VP8X", bytes([first[0] | 0x04]) + first[1:])
    chunks.append((b"XMP ", PACKET))
    body = b"WEBP"
    for kind, part in chunks:
        body += kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body
