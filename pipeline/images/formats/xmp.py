"""Say in the file that it was edited: the IPTC digital source type, as an XMP packet.

IPTC Photo Metadata Standard, DigitalSourceType, term compositeWithTrainedAlgorithmicMedia: a mix of captured
pixels and of pixels made by a trained model. The packet is always the same bytes, so that the metadata
policies know it and let it pass.
"""

from __future__ import annotations

import re

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
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


def marked(packet: bytes | None) -> bytes | None:
    """An XMP packet that says it: `PACKET` for None, else the packet with its own digital source type replaced or
    one more description added. None where it is not RDF in UTF-8."""
    if packet is None:
        return PACKET
    if _ANY_TYPE.search(packet):
        return _ANY_TYPE.sub(SOURCE_TYPE, packet)
    head, end, tail = packet.rpartition(b"</rdf:RDF>")
    return head + _PROPERTY + end + tail if end else None


def shows_preview(payload: bytes) -> bool:
    """Does a block of metadata hold a small picture: XMP thumbnails, images that phones put into XMP, Photoshop's
    thumbnail resources 0x0409 and 0x040C?"""
    return any(
        mark in payload for mark in (b"xmpGImg", b":Thumbnails", b"GImage", b"8BIM\x04\x0c", b"8BIM\x04\x09")
    )
