"""COCO's 80 words (Lin et al. 2014, arXiv:1405.0312), in the order of the classes that detectors are trained on."""

from __future__ import annotations

NAMES: tuple[str, ...] = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush""".replace("\n", " ").split(", ")
)
NAMES = tuple(" ".join(name.split()) for name in NAMES)

PERSON = NAMES.index("person")
VEHICLES = tuple(NAMES.index(name) for name in ("car", "motorcycle", "bus", "truck"))
ANIMALS = tuple(range(NAMES.index("bird"), NAMES.index("giraffe") + 1))
_SAME = {
    "knives": "knife",
    "mice": "mouse",
    "people": "person",
    "television": "tv",
    "sofa": "couch",
    "phone": "cell phone",
}


def number_of(word: str) -> int | None:
    """The class of a word, in any case, one or many ("Cell phones"); None for a word that COCO does not have."""
    plain = " ".join(word.lower().replace("_", " ").split())
    for one in (plain, _SAME.get(plain, ""), plain.removesuffix("s"), plain.removesuffix("es")):
        if one in NAMES:
            return NAMES.index(one)
    return None
