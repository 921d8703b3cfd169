from __future__ import annotations

from pathlib import Path

import pytest

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe.recipe import Recipe, dump, load


def test_defaults_need_no_file() -> None:
    recipe = load(None)
    assert recipe == Recipe()
    assert recipe.remove == ("text", "face")


def test_a_dumped_recipe_loads_equal(tmp_path: Path) -> None:
    recipe = load(None, {"remove": ["faces"], "inpaint.name": "ns", "detect.face.min_score": 0.7})
    (tmp_path / "r.yaml").write_text(dump(recipe))
    assert load(tmp_path / "r.yaml") == recipe
    assert load(tmp_path / "r.yaml").digest({}) == recipe.digest({})


def test_the_digest_covers_output_and_weights_but_not_the_engine() -> None:
    base = Recipe().digest({"w": "1"})
    assert load(None, {"engine.workers": 7, "engine.gpus": 1}).digest({"w": "1"}) == base
    assert load(None, {"output.quality": 94}).digest({"w": "1"}) != base
    assert Recipe().digest({"w": "2"}) != base


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"remove": ["unicorns"]}, "unicorns"),
        ({"remove": []}, "nothing to remove"),
        ({"inpaint.nmae": "ns"}, "inpaint.nmae"),
        ({"output.quality": 101}, "output.quality"),
        ({"masks.segmenter": "magic"}, "masks.segmenter"),
        ({"masks.checkpoint": "x.pth"}, "segmenter sam"),
        ({"units": 3}, "units"),
        ({"version": 2}, "version"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, overrides)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "none.yaml")
    for body in ("- a list", "a: [", "\x00"):
        (tmp_path / "r.yaml").write_text(body)
        with pytest.raises(ConfigError):
            load(tmp_path / "r.yaml")


def test_loading_executes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made"
    (tmp_path / "r.yaml").write_text(f"inpaint: !!python/object/apply:os.system ['touch {target}']")
    with pytest.raises(ConfigError):
        load(tmp_path / "r.yaml")
    assert not target.exists()


def test_plural_and_single_words_are_understood() -> None:
    assert load(None, {"remove": "faces"}).remove == ("face",)
    assert load(None, {"remove": ["plates", "text", "text"]}).remove == ("plate", "text")


def test_areas_survive_a_dump(tmp_path: Path) -> None:
    recipe = load(None, {"detect.face": {"where": "corners", "except": [0, 0, 1, 0.5]}})
    assert recipe.detect_for("face").keep == ((0, 0, 1, 0.5),)
    (tmp_path / "r.yaml").write_text(dump(recipe))
    assert load(tmp_path / "r.yaml") == recipe


@pytest.mark.parametrize(
    ("kind", "message"), [("logos", "references"), ("given", r"given\.file"), ("prompt", r"prompt\.words")]
)
def test_kinds_that_need_more_say_what(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, {"remove": kind})


def test_a_word_in_remove_is_an_object_of_that_word() -> None:
    recipe = load(None, {"remove": ["face", "cell phone", "laptops"], "prompt.words": ["cup"]})
    assert recipe.remove == ("face", "object")
    assert recipe.prompt.words == ("cup", "cell phone", "laptops")
    assert load(None, {"remove": "people"}).remove == ("person",), "a kind's own word stays a kind"
    assert load(None, {"remove": ["vehicles"]}).remove == ("vehicle",)


@pytest.mark.parametrize(
    "overrides", [{"remove": ["lanyard"]}, {"remove": "object", "prompt.words": ["cup", "lanyard"]}]
)
def test_a_word_that_needs_a_model_names_what_to_install(overrides: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"lanyard.*(prompt\.model and )?the extra `prompt`"):
        load(None, overrides)
    load(None, {"remove": "object", "prompt": {"words": ["lanyard"], "model": "owner/owl"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\nb: *a\n", "line 2: no aliases"),
        ("remove: [&f face, *f]\n", "no aliases"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nremove: [*b,*b,*b,*b]\n", "no aliases"),
        ("a: " + "[" * 20_000, "nested too deep"),
        ("a: !!python/object/apply:os.system [echo]\n", "is not YAML"),
        ("#" * (1 << 21), "characters"),
    ],
)
def test_yaml_that_unfolds_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "r.yaml")


@pytest.mark.parametrize("key", ["inpaint.name", "masks.checkpoint", "given.file"])
@pytest.mark.parametrize(
    "address",
    ["https://me:s3cret9@host/w.pt", "s3://bucket/w.pt?X-Amz-Signature=s3cret9", "https://h/w?token=s3cret9"],
)
def test_credentials_in_a_recipe_are_refused_and_not_repeated(key: str, address: str) -> None:
    with pytest.raises(ConfigError, match="must not hold credentials") as caught:
        load(None, {key: address, "masks.segmenter": "sam"})
    assert key in str(caught.value)
    assert "s3cret9" not in str(caught.value)
