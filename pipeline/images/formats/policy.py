"""What a file says besides its pixels: drop it by policy, by taking the file apart, never by re-encoding.

Policies:
- scrub: drops GPS, serial numbers, owner, artist, copyright, descriptions, MakerNote, thumbnails, previews,
  XMP and IPTC (whole: their personal fields cannot be told from the rest by a list), comments, C2PA
  manifests, unknown blocks, and bytes behind the end of the image. Keeps ICC, resolution, orientation,
  colour, dates, and how the picture was taken (`exif` has the list).
- strip: drops everything but what is needed to show the pixels as they showed: ICC, JFIF resolution, colour
  and gamma, the orientation.
- keep: drops nothing. When the picture was edited, thumbnails, previews, C2PA manifests (which hold thumbnails
  and would call the edit a forgery) and trailing bytes still go, because they show what was removed.
Every policy lets the mark of an edit pass (`xmp`).
"""

from __future__ import annotations

from typing import Literal

Policy = Literal["scrub", "keep", "strip"]
POLICIES: tuple[Policy, ...] = ("scrub", "keep", "strip")


def policy_of(name: str) -> Policy:
    """The policy of that name. Raises ValueError that lists the names."""
    for known in POLICIES:
        if name == known:
            return known
    raise ValueError(f"metadata is one of {', '.join(POLICIES)}, not {name!r}")
