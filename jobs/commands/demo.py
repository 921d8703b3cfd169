"""`cleanplate demo`: marks drawn on free photographs, cleaned, and shown beside each other."""

from __future__ import annotations

import argparse
import io
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.ui.contact_sheet import SheetRow, contact_sheet

# Centre and half axes, in pixels, of the one real face (astronaut.jpg, 512 x 512), drawn by hand.
FACE = (226.5, 132.0, 44.5, 57.0)
VISIBLE = 12  # of 255: a fainter touch of a mark's soft edge is not counted as the mark


@dataclass(frozen=True)
class Cleaned:
    """What a run says of one image: `name` is its path below the source folder, as posix.

    mask: HW bool, True = removed, of the upright image. after: HWC uint8 RGB; None for a failed image.
    """

    name: str
    status: str
    mask: Mask | None
    after: Image | None
    regions: Sequence[Region] = ()


Clean = Callable[[Path, Path], Iterable[Cleaned]]
"""Cleans a source folder into an output folder and gives one `Cleaned` for every image of the source."""

Draw = Callable[[tuple[int, int], random.Random], Pil.Image]
"""Draws a mark as an RGBA layer of (width, height)."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="clean fifteen photographs with known marks and show the result",
        description="Draw marks on fifteen photographs, clean them, and show before | found | after.",
        epilog="Example: cleanplate demo --out demo-out",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="folder to write (default: demo-out)"
    )
    parser.add_argument("--seed", type=int, default=0, help="where and what the marks are (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return demo(args.out, clean_folder, args.seed)


def clean_folder(source: Path, output: Path) -> Iterator[Cleaned]:
    """Clean a local folder into a local folder with the default recipe, through Ray on this machine."""
    from cleanplate.jobs.commands.run import carry_out
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.ledger import ledger
    from cleanplate.pipeline.recipe import recipe
    from cleanplate.pipeline.ui import row_pictures

    run = runs.start(str(source), str(output), recipe.load(None))
    carry_out(run)
    below = run.source.uri("")
    for table in ledger.rows(run.output, row_pictures.COLUMNS):
        for row in table.to_pylist():
            seen = row_pictures.story(row)
            name = unquote(row["source_uri"].removeprefix(below).lstrip("/"))
            yield Cleaned(name, row["status"], seen.mask, seen.after, seen.regions)


def demo(out: Path, clean: Clean, seed: int = 0) -> int:
    """Makes the input, cleans it, draws `out/sheet.jpg` and prints how much of the marks was covered.

    0 when every image came back, 1 when some did not.
    """
    print(f"15 sample photographs, most with a drawn mark: {out / 'input'}", file=sys.stderr, flush=True)
    truth = make_input(out / "input", seed)
    cleaned = {c.name: c for c in clean(out / "input", out / "output")}
    rows, known, covered = [], 0, 0
    for name, mask in truth.items():
        got = cleaned.get(name, Cleaned(name, "missing", None, None))
        hit = 0 if got.mask is None else int((got.mask & mask).sum())
        known, covered = known + int(mask.sum()), covered + hit
        share = f"{100 * hit / mask.sum():5.1f} % of the known mark covered" if mask.any() else "no mark"
        print(f"{name:22} {got.status:10} {share}")
        before = np.asarray(Pil.open(out / "input" / name).convert("RGB"))
        rows.append(SheetRow(before, got.mask, got.after, name, got.status, got.regions))
    sheet = out / "sheet.jpg"
    sheet.write_bytes(contact_sheet(rows))
    print(f"\n{100 * covered / known:.1f} % of the known marks' pixels were covered by masks")
    print(f"open {sheet}: before, found, after")
    missing = sorted(truth.keys() - cleaned.keys())
    if missing:
        print(f"no result for {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def make_input(folder: Path, seed: int = 0) -> dict[str, Mask]:
    """Writes the demo's photographs to `folder`, most of them with a drawn mark, in mixed formats.

    Returns path below the folder (posix) -> HW bool, True = a pixel of the mark (all False: a clean image),
    and saves each as a 1-bit PNG in `truth/` beside the folder. The masks are those of the drawing, before
    the photograph was encoded. Clean photographs are copied byte for byte. A file that is already there with
    the same bytes is left alone, so that a second demo resumes the first.
    """
    masks: dict[str, Mask] = {}
    for source, name, mark in PHOTOS:
        data = _photo(source)
        photo = Pil.open(io.BytesIO(data)).convert("RGB")
        mask = np.zeros((photo.height, photo.width), bool)
        if source == "astronaut.jpg":
            mask = ellipse(photo.size, *FACE)
        elif mark is not None:
            layer = mark(photo.size, random.Random(f"{seed}/{source}"))
            mask = np.asarray(layer.getchannel("A")) >= VISIBLE
            data = encoded(Pil.alpha_composite(photo.convert("RGBA"), layer).convert("RGB"), name)
        masks[name] = mask
        write_if_other(folder / name, data)
        write_if_other(folder.parent / "truth" / f"{name}.png", encoded(Pil.fromarray(mask), "mask.png"))
    return masks


def _photo(name: str) -> bytes:
    """A photograph of the repository. Raises ConfigError where cleanplate was installed without them."""
    try:
        return resources.files("cleanplate.jobs").joinpath("demo_photos", name).read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            "the demo's photographs are in the repository, not in the package: run it in a clone (make demo)"
        ) from error


def ellipse(size: tuple[int, int], x: float, y: float, a: float, b: float) -> Mask:
    """HW bool, True inside the ellipse around (x, y) with half axes a (across) and b (down), in pixels."""
    ys, xs = np.mgrid[: size[1], : size[0]]
    inside: Mask = ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2 <= 1
    return inside


def encoded(image: Pil.Image, name: str) -> bytes:
    """The image in the format that the name's ending says."""
    buffer = io.BytesIO()
    ending = name.rpartition(".")[2].lower()
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF"}[ending]
    image.save(buffer, kind, **({"quality": 92} if kind in ("JPEG", "WEBP") else {}))
    return buffer.getvalue()


def write_if_other(path: Path, data: bytes) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# The marks. Each is an RGBA layer: what it changes is known to the pixel.


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(10, size))


def date_stamp(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """The orange date that a camera prints into the lower right corner."""
    layer, (w, h) = Pil.new("RGBA", size), size
    text = f"{dice.randint(1998, 2009)} {dice.randint(1, 12):2} {dice.randint(10, 28)}"
    place = (w - 0.04 * h, h - 0.04 * h)
    ImageDraw.Draw(layer).text(place, text, (255, 196, 70, 240), font(0.06 * h), anchor="rs")
    return layer


def credit(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """A photographer's line in a lower corner, white with a soft dark edge."""
    layer, (w, h) = Pil.new("RGBA", size), size
    text = "© " + dice.choice(["Nordwind Pictures", "Studio Arbizu", "alpine-stock.example"])
    left = dice.random() < 0.5
    place = (0.03 * w if left else 0.97 * w, 0.965 * h)
    anchor, white, edge = "ls" if left else "rs", (255, 255, 255, 220), (0, 0, 0, 120)
    draw = ImageDraw.Draw(layer)
    draw.text(place, text, white, font(0.042 * h), anchor, stroke_width=1, stroke_fill=edge)
    return layer


def centre(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """One big half-transparent word across the middle, slanted."""
    layer, (w, h) = Pil.new("RGBA", size), size
    text, face = dice.choice(["SAMPLE", "PREVIEW", "PROOF"]), font(0.16 * min(w, 1.5 * h))
    alpha = dice.randint(105, 140)
    ImageDraw.Draw(layer).text((w / 2, h / 2), text, (255, 255, 255, alpha), face, anchor="mm")
    return layer.rotate(dice.uniform(12, 28), Pil.Resampling.BICUBIC)


def tiled(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """A small word again and again, slanted, over the whole picture."""
    side = math.ceil(math.hypot(*size))
    layer, step = Pil.new("RGBA", (side, side)), side // 5
    draw, face = ImageDraw.Draw(layer), font(side / 28)
    text, alpha = dice.choice(["photobay", "stockly", "pixelbank"]), dice.randint(110, 140)
    for row, y in enumerate(range(step // 2, side, step * 2 // 3)):
        for x in range((row % 2) * step // 2, side, step):
            draw.text((x, y), text, (255, 255, 255, alpha), face, anchor="lm")
    turned = layer.rotate(dice.uniform(25, 35), Pil.Resampling.BICUBIC)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    return turned.crop((left, top, left + size[0], top + size[1]))


def logo(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """A ring with a star and a name under it, in a corner; drawn four times as large for smooth edges."""
    side = round(0.24 * min(size))
    big, r = Pil.new("RGBA", (4 * side, 4 * side)), 4 * side * 0.36
    draw, (x, y), white = ImageDraw.Draw(big), (2 * side, 4 * side * 0.4), (255, 255, 255, 225)
    draw.ellipse((x - r, y - r, x + r, y + r), outline=white, width=max(4, side // 5))
    turns = [(k * math.pi / 5, (0.68 if k % 2 == 0 else 0.28) * r) for k in range(10)]
    draw.polygon([(x + d * math.sin(a), y - d * math.cos(a)) for a, d in turns], fill=white)
    name = dice.choice(["LUMEN", "ORBIT", "VESTA"])
    draw.text((x, 4 * side * 0.9), name, white, font(4 * side * 0.2), anchor="mm")
    layer, edge = Pil.new("RGBA", size), round(0.04 * min(size))
    left = dice.choice([edge, size[0] - side - edge])
    layer.paste(big.resize((side, side), Pil.Resampling.LANCZOS), (left, edge))
    return layer


def caption(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """An opaque caption in the lower third, white with a black edge."""
    layer, (w, h) = Pil.new("RGBA", size), size
    text = dice.choice(
        ["WHEN THE WEEKEND\nFINALLY STARTS", "MONDAY, BUT\nWITH MORE COFFEE", "NO FILTER\nNEEDED"]
    )
    place, face, edge = (w / 2, 0.86 * h), font(0.075 * min(w, h)), max(2, round(0.006 * w))
    draw = ImageDraw.Draw(layer)
    draw.multiline_text(
        place, text, "white", face, "mm", align="center", stroke_width=edge, stroke_fill="black"
    )
    return layer


PHOTOS: list[tuple[str, str, Draw | None]] = [
    ("fig.jpg", "fig.jpg", date_stamp),
    ("brushes.jpg", "brushes.JPG", tiled),
    ("wine.jpg", "wine.webp", caption),
    ("aitzgorri.jpg", "aitzgorri.jpg", credit),
    ("astronaut.jpg", "astronaut.jpg", None),  # its mark is the face
    ("stream.jpg", "stream.png", centre),
    ("picos.jpg", "picos.jpg", centre),
    ("dandelions.jpg", "dandelions.JPG", logo),
    ("motorcycle.jpg", "motorcycle.jpg", caption),
    ("tulips.jpg", "tulips.webp", logo),
    ("coffee.jpg", "coffee.jpg", None),
    ("blossom.jpg", "album/blossom.png", tiled),
    ("sunset.jpg", "album/sunset.jpeg", credit),
    ("friends.jpg", "album/friends.jpeg", None),
    ("cat.jpg", "album/cat.JPG", None),
]
"""(committed photograph, path in the demo's folder, what is drawn on it)."""
