"""cleanplate inspect IMAGE: what a recipe would do to one image, as a picture: before | found | after."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "inspect",
        help="draw what a recipe would do to one image",
        description=__doc__,
        epilog="Example: cleanplate inspect photo.jpg -o look.jpg --remove faces --inpainter ns",
    )
    parser.add_argument("image", metavar="IMAGE", help="a file or s3://BUCKET/KEY")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=None,
        metavar="JPG",
        help="default: IMAGE's name with -inspect.jpg, here",
    )
    add_recipe_flags(parser, ["picture"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the picture was drawn, 1 when the image failed or something was left."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory import check
    from cleanplate.pipeline.storage.connect import Object, open_store
    from cleanplate.pipeline.ui.contact_sheet import before_mask_after
    from cleanplate.pipeline.ui.row_pictures import run_on_images, story

    recipe = recipe_of(args)
    if args.out and args.out.suffix.lower() not in (".jpg", ".jpeg"):
        raise ConfigError(f"{args.out}: the picture is a JPEG; name it .jpg")
    if Path(args.image).is_dir():
        raise ConfigError(f"{args.image} is a folder; name one image in it, or clean it all: cleanplate run")
    weights = check.check(recipe)
    folder, _, name = args.image.rpartition("/")
    store = open_store(folder or ("/" if args.image.startswith("/") else "."))
    uri, size = store.uri(name), store.stat(name).size
    (row,) = run_on_images([(uri, Object(name, size, ""))], recipe, weights).to_pylist()
    out = args.out or Path(f"{Path(name).stem}-inspect.jpg")
    console = Console()
    if row["status"] == "failed":
        text = f"failed: {row['error']['kind']}: {row['error']['message']}"
        console.print(text, highlight=False, soft_wrap=True, markup=False)
        return 1
    out.write_bytes(before_mask_after(story(row)))
    for region in row["regions"] or []:
        box = ", ".join(f"{v:.0f}" for v in region["box"])
        console.print(
            f"{region['kind']}  score {region['score']:.2f}  box {box}  {region['detector']}", highlight=False
        )
    for left in row["residual"] or []:
        console.print(f"left: {left['kind']}  score {left['score']:.2f}  {left['detector']}", highlight=False)
    parts = [row["status"]]
    parts += [f"inpainter {row['inpainter']}"] if row["inpainter"] else []
    parts += [f"passes {row['passes']}"] if row["passes"] else []
    parts += [f"{row['error']['kind']}: {row['error']['message']}"] if row["error"] else []
    console.print("   ".join(parts), highlight=False, markup=False)
    console.print(f"picture: {out}", highlight=False)
    return 1 if row["status"] in ("failed", "residual") else 0
