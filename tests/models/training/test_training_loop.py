import csv
import dataclasses
import itertools
import math

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cleanplate.jobs.train.weights import load_encoder
from cleanplate.models.devices import bf16_is_native
from cleanplate.models.lama.generator import build_generator, params_of
from cleanplate.models.lama.losses import LossWeights
from cleanplate.models.lama.params import LAMA, LamaParams
from cleanplate.models.metrics.pixelwise import thickness
from cleanplate.models.training.checkpoint import (
    CheckpointError,
    export_weights,
    load_best,
    load_checkpoint,
    save_checkpoint,
)
from cleanplate.models.training.data import (
    Photo,
    PhotoBank,
    count_smaller,
    draw_crop,
    evaluation_crop,
    hold_out,
    load_bank,
    shrink,
)
from cleanplate.models.training.lama.batches import Batches, draw_batch, draw_mask
from cleanplate.models.training.lama.loop import Extras, TrainingDiverged, say_substitutes, train
from cleanplate.models.training.lama.objective import fill_losses
from cleanplate.models.training.lama.peers import Peers
from cleanplate.models.training.lama.precision import available_precision
from cleanplate.models.training.lama.recipe import FillWeights, Phase, TrainRecipe, learning_rate
from cleanplate.models.training.lama.state import Initial, start
from cleanplate.models.training.lama.validation import make_validation
from cleanplate.models.training.lama.vgg import VggMaps
from cleanplate.models.training.muon import orthogonalised


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn_photo(seed, size=(80, 96)):
    """A gradient with a coloured disc: something that a fill can learn within a few steps."""
    rng = np.random.default_rng(seed)
    image = np.linspace(rng.integers(0, 80, 3), rng.integers(150, 255, 3), size[1])[None].repeat(size[0], 0)
    image = np.ascontiguousarray(image.astype(np.uint8))
    centre = (int(rng.integers(size[1])), int(rng.integers(size[0])))
    cv2.circle(image, centre, 15, [int(v) for v in rng.integers(0, 255, 3)], -1)
    return image


@pytest.fixture
def bank():
    images = tuple(drawn_photo(seed) for seed in range(6))
    return PhotoBank(tuple(f"drawn/{n}.png" for n in range(6)), images, np.full(6, 1 / 6))


@pytest.fixture
def validation():
    return make_validation([drawn_photo(seed) for seed in (20, 21)], size=64)


FULL = FillWeights(hole_l1=1, hole_l2=1, known_l1=0.2, gradient=0.3, pyramid=1)
SEEN = FillWeights(hole_l1=1, flip=1)
RECIPE = TrainRecipe(
    model="tiny",
    phases=(Phase(4, 32, 4, 2e-3, 1e-3, fill=FULL), Phase(3, 64, 2, 1e-3, 1e-4, fill=FULL)),
    masks=(("large", 0.5), ("thin-256", 0.5)),
    warmup=2,
    log_every=1,
    validate_every=100,
)


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


PAPER = LossWeights()
ADVERSARIAL = dataclasses.replace(
    RECIPE,
    phases=(Phase(2, 64, 2, 1e-3, 1e-3, fill=FULL), Phase(5, 64, 2, 1e-3, 1e-3, paper=PAPER)),
    ndf=8,
)
MUON = dataclasses.replace(RECIPE, prefill=True, muon_ratio=10.0)


@pytest.mark.parametrize("recipe", [RECIPE, MUON, ADVERSARIAL], ids=["adam", "muon", "adversarial"])
def test_a_stopped_run_goes_on_to_the_same_weights(recipe, tmp_path, bank, validation):
    whole = train(recipe, bank, validation, tmp_path / "whole")
    train(recipe, bank, validation, tmp_path / "halves", stop_after=5)
    resumed = train(recipe, bank, validation, tmp_path / "halves")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)
    first, second = (
        [(row["step"], row["loss"]) for row in rows(tmp_path / run / "train.csv")]
        for run in ("whole", "halves")
    )
    assert first == second
    assert [step for step, _ in first] == [str(n) for n in range(1, 8)]


def test_a_run_killed_between_checkpoints_repeats_its_steps_once_in_the_log(tmp_path, bank, validation):
    train(RECIPE, bank, validation, tmp_path, stop_after=3)
    with (tmp_path / "train.csv").open("a") as stream:
        stream.write("4,0,0.1\n5,0,0.1\n")  # what a killed run logged after its last checkpoint
    train(RECIPE, bank, validation, tmp_path, stop_after=6)
    assert [row["step"] for row in rows(tmp_path / "train.csv")] == ["1", "2", "3", "4", "5", "6"]


def test_training_lowers_the_loss_and_keeps_the_best_weights(tmp_path, bank, validation):
    recipe = dataclasses.replace(RECIPE, phases=(Phase(30, 32, 4, 4e-3, 1e-3, fill=FULL),), validate_every=15)
    train(recipe, bank, validation, tmp_path)
    losses = [float(row["loss"]) for row in rows(tmp_path / "train.csv")]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    scores = [float(row["hole_psnr"]) for row in rows(tmp_path / "validation.csv")]
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["scores"]["hole_psnr"] == pytest.approx(max(scores))
    sample = cv2.imread(str(tmp_path / "samples" / "0000030.jpg"))
    assert sample.shape == (64, 2 * 3 * 64, 3)


def test_the_weights_that_look_best_are_kept_when_the_recipe_says_so(tmp_path, bank, validation):
    phase = Phase(12, 32, 4, 4e-3, 4e-3, fill=SEEN)
    train(
        dataclasses.replace(RECIPE, phases=(phase,), validate_every=2, best_by="flip"),
        bank,
        validation,
        tmp_path,
    )
    logged = rows(tmp_path / "train.csv")
    assert all(0 < float(row["flip"]) < float(row["loss"]) for row in logged)
    scores = {int(row["step"]): float(row["flip"]) for row in rows(tmp_path / "validation.csv")}
    best = load_best(tmp_path)
    assert best["step"] == min(scores, key=scores.__getitem__)
    assert best["scores"]["flip"] == pytest.approx(min(scores.values()))


def test_workers_share_out_the_batch_of_one():
    bank = PhotoBank(("a",), (drawn_photo(0),), np.ones(1))
    whole, _ = draw_batch(RECIPE, bank, 3, Peers())
    parts = [draw_batch(RECIPE, bank, 3, Peers(rank, 2))[0] for rank in (0, 1)]
    torch.testing.assert_close(torch.cat(parts), whole[[0, 2, 1, 3]])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, bank, validation):
    train(RECIPE, bank, validation, tmp_path, stop_after=3)

    def poison(tensors):
        for tensor in tensors:
            tensor.fill_(math.nan)

    with pytest.raises(TrainingDiverged, match="step 3"):
        train(RECIPE, bank, validation, tmp_path, peers=Peers(0, 1, poison))
    state = load_checkpoint(tmp_path)
    assert state["step"] == 3
    assert all(torch.isfinite(t).all() for t in state["model"].values())


def test_another_recipe_in_the_same_folder_is_refused_unless_allowed(tmp_path, bank, validation):
    train(RECIPE, bank, validation, tmp_path, stop_after=2)
    changed = dataclasses.replace(RECIPE, seed=9)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(changed, bank, validation, tmp_path)
    train(changed, bank, validation, tmp_path, allow_changed_recipe=True, stop_after=3)
    assert load_checkpoint(tmp_path)["recipes"] == [RECIPE.digest(), changed.digest()]


def test_a_truncated_checkpoint_is_said(tmp_path, bank, validation):
    train(RECIPE, bank, validation, tmp_path, stop_after=2)
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cannot read .*last\.pt"):
        train(RECIPE, bank, validation, tmp_path)


def test_a_checkpoint_of_another_model_is_said(tmp_path, bank, validation):
    other = build_generator(LAMA["lama-lite"]).state_dict()
    state = {"model": other, "optimizer": {}, "average": other, "step": 1, "best": 0.0, "substitutes": []}
    save_checkpoint(tmp_path, {**state, "recipes": [RECIPE.digest()]})
    with pytest.raises(CheckpointError, match="does not fit tiny"):
        train(RECIPE, bank, validation, tmp_path)


@pytest.mark.parametrize("key", ["model", "optimizer", "average", "recipes"])
def test_a_checkpoint_without_one_of_its_keys_is_said(key, tmp_path, bank, validation):
    train(RECIPE, bank, validation, tmp_path, stop_after=1)
    state = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, {name: part for name, part in state.items() if name != key})
    with pytest.raises(CheckpointError, match=f"it has no {key}"):
        train(RECIPE, bank, validation, tmp_path)


def test_a_truncated_best_is_said_on_export(tmp_path, bank, validation):
    train(RECIPE, bank, validation, tmp_path)
    path = tmp_path / "best.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"cannot read .*best\.pt"):
        load_best(tmp_path)


def test_no_half_written_checkpoint_takes_the_place_of_a_good_one(tmp_path):
    save_checkpoint(tmp_path, {"step": 1})
    with pytest.raises(AttributeError, match="pickle"):
        save_checkpoint(tmp_path, {"step": 2, "cannot be saved": lambda: None})
    assert load_checkpoint(tmp_path)["step"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "huge"}, "is not one of"),
        ({"masks": (("oval", 1.0),)}, "oval"),
        ({"phases": ()}, "no phases"),
        ({"phases": (Phase(1, 36, 4, 1e-3, 1e-3),)}, "multiple of 8"),
        ({"phases": (Phase(1, 32, 0, 1e-3, 1e-3),)}, "at least 1"),
        ({"phases": (Phase(1, 32, 2, 1e-3, 1e-3),)}, "no loss"),
    ],
)
def test_a_recipe_without_sense_is_refused_before_work(tmp_path, bank, validation, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(RECIPE, **change), bank, validation, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_batch_that_cannot_be_dealt_out_is_refused(tmp_path, bank, validation):
    with pytest.raises(ValueError, match="dealt to 3 workers"):
        train(RECIPE, bank, validation, tmp_path, peers=Peers(0, 3))


def test_the_learning_rate_warms_up_and_falls_in_each_phase():
    rates = [learning_rate(RECIPE, step) for step in range(RECIPE.steps)]
    assert rates[0] == pytest.approx(1e-3)  # half of 2e-3: two steps of warm-up
    assert rates[3] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(1e-3)
    assert rates[6] == pytest.approx(1e-4)
    assert all(a >= b for a, b in itertools.pairwise(rates[1:]))


def test_the_parts_of_the_loss_by_hand():
    images = torch.full((1, 3, 32, 32), 0.5)
    masks = torch.zeros(1, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    predicted = images + 0.2
    parts = fill_losses(predicted, images, masks, FillWeights(1, 1, 1, 1, 1))
    assert float(parts["hole_l1"]) == pytest.approx(0.2, abs=1e-6)
    assert float(parts["hole_l2"]) == pytest.approx(0.04, abs=1e-6)
    assert float(parts["known_l1"]) == pytest.approx(0.2, abs=1e-6)
    # A flat tint has a gradient only along its seam: 4 sides of 16 px, 0.2 each, over 256 px.
    assert float(parts["gradient"]) == pytest.approx(4 * 16 * 0.2 / 256, abs=1e-6)
    assert float(parts["pyramid"]) == pytest.approx(0.2, abs=1e-6)
    assert fill_losses(predicted, images, masks, FillWeights(hole_l1=1)).keys() == {"hole_l1"}


def test_exported_weights_load_strictly_and_say_where_they_are_from(tmp_path):
    model = build_generator(LAMA["tiny"])
    path = tmp_path / "tiny.safetensors"
    size = export_weights(model.state_dict(), path, {"licence": "Apache-2.0"})
    weights = load_file(path)
    assert size == path.stat().st_size < 2.5 * sum(p.numel() for p in model.parameters())
    assert params_of(weights) == LAMA["tiny"]
    assert weights["model.1.ffc.convl2l.weight"].dtype == torch.float16
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"licence": "Apache-2.0"}


def test_weights_beyond_fp16_are_refused(tmp_path):
    with pytest.raises(ValueError, match="big"):
        export_weights({"big": torch.tensor([1e6])}, tmp_path / "x.safetensors", {})
    assert not list(tmp_path.iterdir())


def photo(file, source="s", data=None):
    """An encoded photograph in memory."""
    encoded = cv2.imencode(".png", drawn_photo(1))[1].tobytes() if data is None else data
    return Photo(file, source, lambda: encoded)


def test_an_unreadable_photo_is_left_out_and_said(caplog):
    bad = photo("bad.png", data=b"not a picture")
    bank = load_bank([bad, photo("good.png"), photo("empty.png", data=b"")], 64)
    assert bank.names == ("s/good.png",)
    assert "bad.png" in caplog.text
    assert "empty.png" in caplog.text
    with pytest.raises(ValueError, match="none of 1"):
        load_bank([bad], 64)


def test_photos_beyond_the_memory_are_read_at_each_use_and_drawn_alike(caplog):
    photos = [photo(f"{n}.png", data=cv2.imencode(".png", drawn_photo(n))[1].tobytes()) for n in range(5)]
    held = load_bank(photos, 64)
    spare = load_bank(photos, 64, memory=1)
    assert spare.names == held.names
    for step in range(4):
        for a, b in zip(*(draw_batch(RECIPE, bank, step, Peers()) for bank in (held, spare)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    lost = load_bank([photos[0], photo("lost.png", data=b"gone")], 64, memory=1)
    assert lost.draw(np.random.default_rng(0)) is not None  # what cannot be read is drawn again
    for seed in range(8):
        lost.draw(np.random.default_rng(seed))
    assert "drawn again: s/lost.png" in caplog.text


def test_batches_drawn_ahead_are_those_drawn_when_asked_for(bank):
    with Batches(RECIPE, bank, Peers()) as plain, Batches(RECIPE, bank, Peers(), threads=3) as ahead:
        for step in range(RECIPE.steps):
            for a, b in zip(plain.at(step), ahead.at(step), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_small_photos_are_counted(caplog):
    assert count_smaller(load_bank([photo("a.png"), photo("b.png")], 64), 65) == 2
    assert count_smaller(load_bank([photo("a.png"), photo("b.png")], 64), 64) == 0


def test_sources_are_balanced_by_the_power():
    photos = [*(photo(f"{n}.png", "many") for n in range(4)), photo("1.png", "few")]
    for power, share in ((1.0, 1 / 5), (0.5, 1 / 3), (0.0, 1 / 2)):
        bank = load_bank(photos, 64, power)
        few = sum(w for n, w in zip(bank.names, bank.weights, strict=True) if n.startswith("few"))
        assert few == pytest.approx(share)


def test_hold_out_is_disjoint_complete_and_fixed():
    photos = [photo(f"{n}.jpg") for n in range(40)]
    kept, held = hold_out(photos, 0.05)
    assert len(held) == 2
    assert sorted(p.file for p in (*kept, *held)) == sorted(p.file for p in photos)
    assert hold_out(list(reversed(photos)), 0.05)[1] == held
    with pytest.raises(ValueError, match="cannot hold out"):
        hold_out(photos[:1], 0.5)


def test_crops_have_the_size_asked_for_even_from_small_photos():
    small = PhotoBank(("s",), (drawn_photo(0, (40, 300)),), np.ones(1))
    for seed in range(5):
        crop = draw_crop(np.random.default_rng(seed), small, 64, (0.9, 2.0))
        assert crop.shape == (64, 64, 3)
        assert crop.dtype == np.uint8
    assert evaluation_crop(drawn_photo(0, (40, 300)), 64).shape == (64, 64, 3)
    assert shrink(drawn_photo(0, (40, 300)), 20).shape == (20, 150, 3)
    assert shrink(drawn_photo(0, (40, 300)), 50).shape == (40, 300, 3)


def test_a_missing_encoder_is_said_in_the_log_and_in_the_checkpoint(tmp_path, bank, validation, caplog):
    recipe = dataclasses.replace(ADVERSARIAL, phases=(Phase(1, 64, 2, 1e-3, 1e-3, paper=PAPER),))
    train(recipe, bank, validation, tmp_path)
    assert "perceptual loss is replaced" in caplog.text
    assert load_checkpoint(tmp_path)["substitutes"] == ["perceptual"]
    (row,) = rows(tmp_path / "train.csv")
    assert row["perceptual"] == ""
    assert float(row["perceptual_substitute"]) > 0
    assert float(row["d_adversarial"]) > 0


def test_an_encoder_takes_the_place_of_the_substitute(tmp_path, bank, validation):
    recipe = dataclasses.replace(ADVERSARIAL, phases=(Phase(1, 64, 2, 1e-3, 1e-3, paper=PAPER),))
    train(recipe, bank, validation, tmp_path, extras=Extras(encoder=lambda x: [x, x[:, :, ::2, ::2]]))
    (row,) = rows(tmp_path / "train.csv")
    assert float(row["perceptual"]) > 0
    assert row["perceptual_substitute"] == ""


def test_the_best_by_perceptual_loss_is_kept_and_needs_an_encoder(tmp_path, bank, validation):
    recipe = dataclasses.replace(RECIPE, phases=(Phase(2, 64, 2, 1e-3, 1e-3, fill=FillWeights(hole_l1=1)),))
    recipe = dataclasses.replace(recipe, best_by="perceptual", validate_every=1)
    with pytest.raises(ValueError, match="--encoder"):
        train(recipe, bank, validation, tmp_path / "without")
    train(recipe, bank, validation, tmp_path, extras=Extras(encoder=lambda x: [x]))
    scores = [float(row["perceptual"]) for row in rows(tmp_path / "validation.csv")]
    assert load_best(tmp_path)["scores"]["perceptual"] == pytest.approx(min(scores))
    assert all(float(row["texture"]) > 0 for row in rows(tmp_path / "validation.csv"))


def test_vgg_as_an_encoder_has_maps_of_one_strength(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "vgg.safetensors"
    save_file(VggMaps().state_dict(), file)
    encoder = load_encoder(str(file), "cpu")
    maps = encoder(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert all(float(m.square().mean()) == pytest.approx(1, abs=0.05) for m in maps)
    broken = {name: t for name, t in VggMaps().state_dict().items() if "21" not in name}
    save_file(broken, file)
    with pytest.raises(ValueError, match="not the weights of VGG-16"):
        load_encoder(str(file), "cpu")


def test_letters_as_holes_are_thin_and_repeat():
    crop = drawn_photo(0, (128, 128))
    masks = [draw_mask(np.random.default_rng(seed), crop, "letters", 0.55) for seed in range(6)]
    assert all(0 < mask.mean() <= 0.55 and mask.shape == (128, 128) for mask in masks)
    assert max(thickness(mask) for mask in masks) < 26
    assert np.array_equal(masks[3], draw_mask(np.random.default_rng(3), crop, "letters", 0.55))


def test_orthogonalised_evens_out_the_singular_values():
    rng = torch.Generator().manual_seed(0)
    for shape in ((16, 40), (40, 16)):
        matrix = torch.randn(shape, generator=rng) @ torch.diag(torch.logspace(-1, 1, shape[1]))
        values = torch.linalg.svdvals(orthogonalised(matrix))
        before = torch.linalg.svdvals(matrix)
        assert before.max() / before.min() > 10
        assert values.max() < 1.3
        assert values.min() > 0.5


def test_bf16_follows_fp32(tmp_path, bank, validation):
    """The same losses to bf16's three digits, with weights, averages and gradients kept in fp32."""
    if not bf16_is_native("cpu"):
        pytest.skip("this CPU does not multiply bf16: training falls back to fp32, as the next test says")
    found = []
    for precision in ("fp32", "bf16"):
        recipe = dataclasses.replace(ADVERSARIAL, precision=precision, prefill=True)
        weights = train(recipe, bank, validation, tmp_path / precision)
        assert all(t.dtype in (torch.float32, torch.int64) for t in weights.values())
        found.append([float(row["loss"]) for row in rows(tmp_path / precision / "train.csv")])
    assert found[0] != found[1]
    np.testing.assert_allclose(found[1][:3], found[0][:3], rtol=0.02)
    np.testing.assert_allclose(found[1], found[0], rtol=0.1)


def test_bf16_without_hardware_is_fp32_and_is_said(tmp_path, bank, validation, caplog):
    cpu = torch.device("cpu")
    assert available_precision("bf16", cpu, native=lambda device: False) == "fp32"
    assert available_precision("bf16", cpu, native=lambda device: True) == "bf16"
    assert available_precision("fp32", cpu, native=lambda device: False) == "fp32"
    run = start(dataclasses.replace(RECIPE, precision="bf16"), tmp_path, cpu, False, None)
    say_substitutes(dataclasses.replace(RECIPE, precision="bf16"), run, None, native=lambda device: False)
    assert "does not multiply bf16: training in fp32" in caplog.text
    assert run.substitutes == ["bf16"]


def test_a_key_that_came_later_leaves_old_digests_alone():
    assert RECIPE.digest() == "c00ad9ee6a64fe28dc6cf9fa7b3f5ecfc829bccb7d4d3d39dc717ae4a286f9c7"
    for change in ({"precision": "bf16"}, {"shape": LAMA["tiny"]}, {"best_by": "flip"}):
        assert dataclasses.replace(RECIPE, **change).digest() != RECIPE.digest()
    fills = [dataclasses.replace(FULL, **{name: 0.1}) for name in ("flip", "weave")]
    for change in ({"composite": True}, *({"fill": fill} for fill in fills)):
        phases = (dataclasses.replace(RECIPE.phases[0], **change), RECIPE.phases[1])
        assert dataclasses.replace(RECIPE, phases=phases).digest() != RECIPE.digest()


def test_a_training_starts_from_given_weights_and_says_which(tmp_path, bank, validation):
    torch.manual_seed(4)
    given = build_generator(LAMA["tiny"]).state_dict()
    still = dataclasses.replace(RECIPE, phases=(Phase(1, 32, 4, 1e-12, 1e-12, fill=FULL),), ema=1.0)
    extras = Extras(initial=Initial("ab" * 32, given))
    weights = train(still, bank, validation, tmp_path / "a", extras=extras)
    for name, tensor in weights.items():
        if "running" not in name and tensor.is_floating_point():
            torch.testing.assert_close(tensor, given[name], rtol=0, atol=1e-6)
    assert load_checkpoint(tmp_path / "a")["initial"] == load_best(tmp_path / "a")["initial"] == "ab" * 32
    other = Initial("00", build_generator(LAMA["lama-lite"]).state_dict())
    with pytest.raises(ValueError, match="not the recipe's model's"):
        train(still, bank, validation, tmp_path / "b", extras=Extras(initial=other))


def test_a_shape_of_ones_own_is_trained(tmp_path, bank, validation):
    shape = LamaParams("regular", 4, 3, 1, 0.0, 1024)
    recipe = dataclasses.replace(RECIPE, model="mine", shape=shape, phases=RECIPE.phases[:1])
    assert params_of(train(recipe, bank, validation, tmp_path)) == shape


def test_a_composite_phase_shows_the_discriminator_the_photograph_round_the_hole(tmp_path, bank, validation):
    found = []
    for composite in (False, True):
        phases = (dataclasses.replace(ADVERSARIAL.phases[1], steps=1, composite=composite),)
        recipe = dataclasses.replace(ADVERSARIAL, phases=phases)
        train(recipe, bank, validation, tmp_path / str(composite))
        found.append(rows(tmp_path / str(composite) / "train.csv")[0])
    # Only what the hole changes is left to match, and known pixels cost nothing any more.
    assert float(found[1]["feature_matching"]) < float(found[0]["feature_matching"])
    assert float(found[1]["l1"]) == pytest.approx(0, abs=1e-6)
    assert float(found[0]["l1"]) > 0.01


def test_every_file_is_reported_when_it_is_whole_and_tensorboard_has_the_scalars(tmp_path, bank, validation):
    seen = []
    train(
        RECIPE,
        bank,
        validation,
        tmp_path,
        extras=Extras(tensorboard=True, saved=lambda path: seen.append((path.name, path.stat().st_size))),
    )
    assert {name for name, _ in seen} == {"last.pt", "best.pt", "train.csv", "validation.csv", "0000007.jpg"}
    assert all(size > 0 for _, size in seen)
    for table, tag in (("train", b"grad_norm"), ("validation", b"hole_psnr")):
        (events,) = (tmp_path / "tensorboard" / table).iterdir()
        assert tag in events.read_bytes()


def test_progress_is_told(tmp_path, bank, validation, caplog):
    with caplog.at_level("INFO"):
        train(RECIPE, bank, validation, tmp_path)
    assert "step 1 of 7, phase 0: loss" in caplog.text


def test_segmentation_holes_can_be_trained_on(tmp_path, bank, validation):
    recipe = dataclasses.replace(RECIPE, masks=(("segmentation", 1.0),))
    images, masks = draw_batch(recipe, bank, 0, Peers())
    assert images.shape == (4, 3, 32, 32)
    assert bool(((masks == 0) | (masks == 1)).all())
    assert all(0 < float(mask.mean()) <= 0.55 for mask in masks)
