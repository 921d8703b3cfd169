"""Files that lie among photographs and are none, by name: what a phone, a computer or a person puts beside them.

Only names that no picture has. Whatever else a source holds is a row, known by its content: a picture without a suffix
or with a wrong one is cleaned, an archive of pictures or a camera's raw file fails with its cause. With
`source.format: objects` these are rows too.
"""

from __future__ import annotations

from pathlib import PurePosixPath

_NAMES = frozenset(
    (
        ".ds_store",
        ".localized",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        ".picasa.ini",
        ".nomedia",
        "icon\r",
    )
)
_PREFIX = "._"  # AppleDouble: what macOS keeps of a file on a disk that cannot hold it
_FOLDER = "__MACOSX"
_SUFFIXES = frozenset(
    [
        *(
            "mov",
            "mp4",
            "m4v",
            "avi",
            "mkv",
            "webm",
            "3gp",
            "3g2",
            "mts",
            "m2ts",
            "wmv",
            "mpg",
            "mpeg",
            "flv",
        ),
        *("mp3", "m4a", "wav", "aac", "flac", "ogg", "opus", "amr", "aif", "aiff"),
        *("aae", "xmp", "thm", "lrv", "pp3", "dop", "cos", "lrcat", "modd", "moff"),  # of pictures and films
        *(
            "txt",
            "md",
            "rst",
            "json",
            "jsonl",
            "ndjson",
            "csv",
            "tsv",
            "xml",
            "yaml",
            "yml",
            "ini",
            "toml",
            "log",
        ),
        *("html", "htm", "css", "js", "py", "sh", "ipynb", "srt", "vtt", "url", "lnk", "webloc"),
        *(
            "pdf",
            "doc",
            "docx",
            "odt",
            "rtf",
            "xls",
            "xlsx",
            "ods",
            "ppt",
            "pptx",
            "odp",
            "pages",
            "numbers",
            "key",
        ),
        *("npy", "npz", "pkl", "pt", "pth", "ckpt", "safetensors", "onnx", "h5", "hdf5", "db", "sqlite"),
    ]
)


def is_other(key: str) -> bool:
    """Is an object of this key, below its source, known to be no picture?"""
    path = PurePosixPath(key)
    name = path.name.lower()
    return (
        name in _NAMES
        or name.startswith(_PREFIX)
        or _FOLDER in path.parts[:-1]
        or path.suffix.lower().lstrip(".") in _SUFFIXES
    )
