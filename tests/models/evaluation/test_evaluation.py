"""The judges of fills, and the tables made of what they say."""

import cv2
import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from cleanplate.models.evaluation import judges
from cleanplate.models.evaluation.ablation import as_tables, inpainter_of, variants
from cleanplate.models.evaluation.judges import (
    Metric,
    flip,
    flip_metric,
    lpips_metric,
    pair_metrics,
    texture_over_ring,
    texture_over_truth,
)
from cleanplate.models.evaluation.pairs import SHAPES, Pair, enlarged, make_pair
from cleanplate.models.evaluation.pictures import curve, grid
from cleanplate.models.evaluation.sheets import Picks
from cleanplate.models.evaluation.tables import Scores, markdown
from cleanplate.models.lama.generator import build_generator
from cleanplate.models.lama.params import LAMA
from cleanplate.models.metrics.inception import FidInception, features_of, frechet_distance
from cleanplate.models.metrics.lpips import STAGES, Lpips, load_lpips, lpips
from cleanplate.models.training.lama.recipe import FillWeights, Phase, TrainRecipe, check_recipe
from cleanplate.models.weights.registry import add


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(seed, side=64):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_the_frechet_distance_is_torchmetrics():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 8)), rng.normal(0.5, 2.0, size=(60, 8))
    moments = [(torch.tensor(x.mean(0)), torch.tensor(np.cov(x, rowvar=False))) for x in (a, b)]
    wanted = float(_compute_fid(*moments[0], *moments[1]))
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(a[:1], b)


def test_fids_network_has_the_published_shape():
    torch.manual_seed(0)
    network = FidInception().eval()
    assert sum(p.numel() for p in network.parameters()) == 21_785_568 + 2049 * 1008
    state = network.state_dict()
    assert state["Conv2d_1a_3x3.conv.weight"].shape == (32, 3, 3, 3)
    assert state["Mixed_6c.branch7x7dbl_4.conv.weight"].shape == (160, 160, 7, 1)
    assert state["Mixed_7c.branch3x3dbl_3a.conv.weight"].shape == (384, 384, 1, 3)
    assert features_of(network, [noise(0)]).shape == (1, 2048)


def vgg_and_linear(seed=0):
    torch.manual_seed(seed)
    state = {f"features.{k}": v for k, v in Lpips().features.state_dict().items()}
    weights = {f"lin{n}.model.1.weight": torch.rand(1, stage[-1], 1, 1) for n, stage in enumerate(STAGES)}
    return {**state, "classifier.0.weight": torch.zeros(1)}, weights


def test_lpips_is_a_distance_linear_in_its_last_layers():
    vgg, linear = vgg_and_linear()
    network = load_lpips(vgg, linear)
    assert sum(p.numel() for p in network.features.parameters()) == 14_714_688  # VGG-16's convolutions
    a, b = noise(1, 32), noise(2, 32)
    apart = lpips(network, a, b)
    assert apart > 0
    assert lpips(network, b, a) == pytest.approx(apart, rel=1e-5)
    assert lpips(network, a, a) == pytest.approx(0, abs=1e-9)
    doubled = load_lpips(vgg, {name: 2 * weight for name, weight in linear.items()})
    assert lpips(doubled, a, b) == pytest.approx(2 * apart, rel=1e-5)
    with pytest.raises(ValueError, match=r"lin4\.model"):
        load_lpips(vgg, {k: v for k, v in linear.items() if not k.startswith("lin4")})
    with pytest.raises(ValueError, match="VGG-16"):
        load_lpips({}, linear)


def test_lpips_by_hand_at_its_first_layer():
    """With weight on the first tap only: the mean over pixels of the weighted squares of unit vectors' difference."""
    vgg, linear = vgg_and_linear()
    linear = {k: v if k.startswith("lin0") else torch.zeros_like(v) for k, v in linear.items()}
    network = load_lpips(vgg, linear)
    maps = []
    for picture in (noise(3, 32), noise(4, 32)):
        x = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        with torch.no_grad():
            x = network.features[:4](x[None])[0].double()
        maps.append(x / x.square().sum(0).sqrt())
    weight = linear["lin0.model.1.weight"].double().view(-1, 1, 1)
    wanted = float(((maps[0] - maps[1]).square() * weight).sum(0).mean())
    assert lpips(network, noise(3, 32), noise(4, 32)) == pytest.approx(wanted, rel=1e-4)


def test_flip_is_zero_for_the_truth_and_grows_with_the_error():
    truth = np.full((64, 64, 3), 120, np.uint8)
    near, far = truth.copy(), truth.copy()
    near[20:40, 20:40] += 10
    far[20:40, 20:40] += 80
    assert flip(truth, truth) == pytest.approx(0, abs=1e-6)
    assert 0 < flip(near, truth) < flip(far, truth) < 1


def test_what_is_not_there_is_said_and_never_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", str(tmp_path))
    found = {metric.name: metric for metric in pair_metrics()}
    assert found["lpips"].of is None
    assert found["lpips"].needs == "needs weights: vgg16, lpips-vgg"
    absent = flip_metric("no_such_package")
    assert absent.of is None
    assert "pip install '.[eval]'" in absent.needs
    assert judges.fid_embedding() == "needs weights: fid-inception"
    scores = Scores([found["l1"], found["lpips"]], judges.fid_embedding())
    scores.add("table", pair(), {"a": (noise(1), 0.1)})
    rows = scores.summary("table", "masks", "inpainter")
    assert rows[0]["lpips"] is rows[0]["fid"] is None
    text = markdown(rows, ("masks", "inpainter"), scores.columns(), ("masks",))
    assert "| needs weights: vgg16, lpips-vgg | needs weights: fid-inception |" in text


def test_lpips_is_measured_where_its_weights_are(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", str(tmp_path / "cache"))
    names = ("my-vgg", "my-linear")
    for name, tensors in zip(names, vgg_and_linear(), strict=True):
        torch.save(tensors, tmp_path / f"{name}.pth")
        add(name, str(tmp_path / f"{name}.pth"), kind="metric")
    metric = lpips_metric("cpu", names)
    assert metric.of is not None
    found = metric.of(noise(1), noise(2), np.ones((64, 64), bool))
    assert found > 0
    # The convolutions alone, under their own name, where the whole VGG-16 is not.
    assert lpips_metric("cpu", ("absent", "my-linear")).needs == "needs weights: absent"
    add("vgg16-features", str(tmp_path / "my-vgg.pth"), kind="metric")
    metric = lpips_metric("cpu", ("absent", "my-linear"))
    assert metric.of is not None
    assert metric.of(noise(1), noise(2), np.ones((64, 64), bool)) == pytest.approx(found)


def pair(seed=0, kind="wide"):
    result = make_pair("p.jpg", noise(seed), kind, 64, (seed,))
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("share", "bucket"), [(0.001, "0-10"), (0.1, "0-10"), (0.11, "10-20"), (0.45, "40-50"), (0.5, "40-50")]
)
def test_buckets_of_ten_per_cent(share, bucket):
    mask = np.zeros(10_000, bool)
    mask[: round(share * 10_000)] = True
    assert Pair("p", "wide", np.zeros((100, 100, 3), np.uint8), mask.reshape(100, 100)).bucket == bucket


def test_pairs_follow_from_their_seed_and_keep_to_half_the_area():
    for kind in ("narrow", "medium", "wide"):
        first, again, other = (make_pair("p", noise(0), kind, 64, seed) for seed in ((1, 2), (1, 2), (1, 3)))
        assert first is not None
        assert again is not None
        assert other is not None
        np.testing.assert_array_equal(first.mask, again.mask)
        assert (first.mask != other.mask).any()
        assert 0 < first.coverage <= 0.5


def test_segm_takes_the_given_objects_and_crops_them_as_the_photograph():
    image, mask = np.zeros((128, 256, 3), np.uint8), np.zeros((128, 256), bool)
    mask[40:80, 100:140] = True
    result = make_pair("p", image, "segm", 64, (0,), lambda: [mask])
    assert result is not None
    ys = np.flatnonzero(result.mask.any(1))
    assert np.ptp(ys) + 1 == pytest.approx(
        20, rel=0.3
    )  # 40 px at half the size, moved and scaled by a quarter
    assert make_pair("p", image, "segm", 64, (0,), list) is None
    larger = enlarged(result, image, 2)
    assert larger.size == 128
    assert larger.coverage == pytest.approx(result.coverage, abs=0.01)


def test_tables_are_means_with_the_best_in_bold_and_fid_over_the_group():
    metrics = [
        Metric("psnr", "PSNR", True, lambda fill, truth, mask: float(fill[0, 0, 0]), decimals=1),
        Metric("l1", "L1", False, lambda fill, truth, mask: float(fill[0, 0, 0]) / 100),
    ]
    scores = Scores(metrics, lambda image: image[0, :3, 0].astype(np.float64))
    for seed in range(4):
        dark, light = np.full((64, 64, 3), 10 + seed, np.uint8), np.full((64, 64, 3), 20 + seed, np.uint8)
        scores.add("table", pair(seed), {"dark": (dark, 1.0), "light": (light, 3.0)})
    rows = scores.summary("table", "masks", "inpainter")
    assert [(r["inpainter"], r["pairs"], r["psnr"]) for r in rows] == [("dark", 4, 11.5), ("light", 4, 21.5)]
    features = [np.stack([f[n] for n in range(0, 8, 2)]) for f in (scores.reals, scores.fakes)]
    assert rows[0]["fid"] == pytest.approx(frechet_distance(features[0], features[1]))
    text = markdown(rows, ("masks", "inpainter"), scores.columns(), ("masks",)).splitlines()
    assert text[2].startswith("| wide | dark | 4 | 11.5 | **0.1150** |")
    assert text[3].startswith("| wide | light | 4 | **21.5** | 0.2150 |")
    assert scores.summary("curve", "size") == []


def test_pictures_have_a_cell_for_each(tmp_path):
    page = grid(["hole", "truth"], [[noise(0, 32), noise(1, 64)]] * 2, cell=64)
    assert page.shape == (22 + 128, 128, 3)
    np.testing.assert_array_equal(page[22:86, 64:], noise(1, 64))
    curve(tmp_path / "c.png", {"a": {256: 1.0, 512: 2.0}}, "t", "PSNR", 256)
    assert (tmp_path / "c.png").stat().st_size > 5000


BASE = TrainRecipe(
    model="tiny",
    phases=(Phase(2, 64, 2, 1e-3, 1e-3, fill=FillWeights(hole_l1=1)),),
    masks=(("large", 1.0),),
    prefill=True,
)


def test_variants_differ_from_the_base_as_the_papers_do():
    chosen = {v.name: v for v in variants(64, 9, (2, 4))}
    assert chosen["fourier"].shape == LAMA["lama-fourier"]
    assert chosen["regular"].shape == LAMA["lama-regular"]
    assert chosen["dilated"].shape == LAMA["lama-dilated"]
    assert chosen["fourier-shallow"].shape.n_blocks == 6
    assert chosen["regular-deep"].shape.n_blocks == 15
    assert chosen["regular-narrow"].recipe(BASE).masks == (("narrow", 1.0),)
    digests = {v.recipe(BASE).digest() for v in chosen.values()}
    assert len(digests) == len(chosen)
    for variant in chosen.values():
        recipe = variant.recipe(BASE)
        check_recipe(recipe)
        assert recipe.steps == BASE.steps
    loss = {v.name: v.recipe(BASE).phases[0].paper for v in variants(8, 3, (3,))}
    assert loss["regular-hrfpl"].perceptual == 30
    assert loss["regular-no-pl"].perceptual == 0


def test_the_ablation_table_has_a_line_a_variant():
    chosen = variants(4, 1, (4,))
    scores = Scores(pair_metrics(), "needs weights: fid-inception")
    for variant in chosen:
        recipe = variant.recipe(BASE)
        torch.manual_seed(0)
        filler = inpainter_of(recipe, build_generator(recipe.params).state_dict())
        for kind in ("narrow", "wide"):
            result = pair(1, kind)
            (fill,) = filler([result.image], [result.mask])
            scores.add("ablation", result, {variant.name: (fill, 0.0)})
    rows = scores.summary("ablation", "masks", "inpainter")
    text = as_tables(chosen, 2, rows, scores.columns(), (4,))
    assert text.count("\n| ") == 1 + len(chosen)
    assert "narrow: LPIPS" in text
    assert "needs weights: fid-inception" in text


@pytest.mark.parametrize("kind", ["thin", "blob"])
def test_strokes_and_blobs_are_what_most_edits_are(kind: str) -> None:
    masks = [SHAPES[kind](np.random.default_rng(seed), 256) for seed in range(12)]
    again = SHAPES[kind](np.random.default_rng(3), 256)
    assert np.array_equal(masks[3], again), "the seed says all"
    radii = [cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5).max() for m in masks]
    shares = [m.mean() for m in masks]
    assert (max(radii) < 16) == (kind == "thin")
    assert min(shares) > 0.01
    assert max(shares) < 0.3


def test_texture_is_that_of_the_truth_or_less() -> None:
    truth = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    hole = np.zeros((64, 64), np.bool_)
    hole[20:44, 20:44] = True
    smooth = np.where(hole[..., None], np.uint8(128), truth)
    assert texture_over_truth(truth, truth, hole) == 1
    assert texture_over_ring(truth, truth, hole) == pytest.approx(1, abs=0.1)
    assert texture_over_truth(smooth, truth, hole) < 0.35, "a blur's width from the edge it has some"
    assert texture_over_ring(truth, truth, np.ones_like(hole)) == 1, "nothing lies round it"


def test_a_sheet_has_the_worst_and_some_at_random() -> None:
    picks = Picks(seed=1)
    for number in range(40):
        mask = np.zeros((96, 96), np.bool_)
        mask[number : number + 9, 50:60] = True
        picture = np.full((96, 96, 3), number, np.uint8)
        picks.add(Pair(str(number), "blob", picture, mask), [picture, picture], badness=float(number % 20))
    assert sorted({one[0] for one in picks.worst}, reverse=True) == [19, 18, 17, 16, 15, 14]
    assert len(picks.worst) == len(picks.random) == 12
    assert len({one[1] for one in picks.random}) == 12
    assert {row[0].shape for *_, row in picks.worst} == {(96, 96, 3)}, "a hole of 9 px and 48 round it"
