"""Every published form of weights is read as tensors; no form runs code. Files are look-alikes built here."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import sys
import threading
import types
import typing
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cleanplate.models.weights.checkpoints import load_tensors
from cleanplate.models.weights.fetch import WeightsError

torch.set_num_threads(1)


class Generator(torch.nn.Module):
    """A few of the generator's key patterns: conv, BatchNorm buffers (int64 counter), a nested module."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(
            torch.nn.ReflectionPad2d(1),
            torch.nn.Conv2d(4, 6, 3, bias=False),
            torch.nn.BatchNorm2d(6),
            torch.nn.Sequential(torch.nn.Conv2d(6, 3, 1), torch.nn.Sigmoid()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class Inpainted(torch.nn.Module):
    """The wrapper that the published TorchScript file was traced from: image and mask in, composite out."""

    def __init__(self, generator: torch.nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        filled = self.generator(torch.cat([image * (1 - mask), mask], dim=1))
        return mask * filled + (1 - mask) * image


class Wrapped(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.model = inner

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(image, mask)


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(7)
    result = Generator().eval()
    result.model[2].running_mean.normal_()
    result.model[2].num_batches_tracked.fill_(12345)
    return result


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype, key
        assert found[key].shape == value.shape, key
        assert torch.equal(found[key], value), key
        assert not found[key].requires_grad
        assert type(found[key]) is torch.Tensor


def traced(module: torch.nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, (torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8))).save(path)


def jit_state(path: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(torch.jit.load(path).state_dict())


def test_safetensors(tmp_path: Path, generator: Generator) -> None:
    path = tmp_path / "no-telling-name"
    save_file(generator.state_dict(), path)
    same(dict(sorted(load_tensors(path).items())), dict(sorted(generator.state_dict().items())))


@pytest.mark.parametrize("container", [None, "gen_state_dict", "state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_torch_save(tmp_path: Path, generator: Generator, container: str | None, zipped: bool) -> None:
    state = generator.state_dict()
    saved = state if container is None else {"epoch": 3, container: state}
    torch.save(saved, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    same(load_tensors(tmp_path / "w.pt"), state)


def test_half_precision_keeps_its_dtype(tmp_path: Path, generator: Generator) -> None:
    state = generator.half().state_dict()
    torch.save(state, tmp_path / "w.pt")
    same(load_tensors(tmp_path / "w.pt"), state)


def test_parameters_come_out_as_plain_tensors(tmp_path: Path, generator: Generator) -> None:
    torch.save(dict(generator.named_parameters()), tmp_path / "w.pt")
    same(load_tensors(tmp_path / "w.pt"), {k: v.detach() for k, v in generator.named_parameters()})


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """The classes that the official checkpoint names, in modules of those names, for this test only."""
    fields: dict[str, type] = {}
    for full in (
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
    ):
        module, _, name = full.rpartition(".")
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            package = ".".join(parts[:depth])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        fields[name] = type(name, (), {"__module__": module})
        monkeypatch.setattr(sys.modules[module], name, fields[name], raising=False)
    return fields


def lightning_checkpoint(framework: dict[str, type], state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As Lightning 1.2 wrote Big LaMa: configuration objects, a class as a key, evaluators' weights."""

    def config(kind: str, **attributes: object) -> object:
        result = framework[kind]()
        result.__dict__.update(attributes)
        return result

    metadata = config("ContainerMetadata", ref_type=typing.Any, object_type=dict, key_type=int, flags={})
    node = config("AnyNode", _val=0.75, _metadata=config("Metadata", ref_type=typing.Any, optional=True))
    items = config("ListConfig", _content=[node], _metadata=config("ContainerMetadata", object_type=list))
    hyper = config("DictConfig", _metadata=metadata, _content={"ratio": node, "items": items})
    best: dict[str, Any] = defaultdict(list, {"monitor": "val_ssim_fid100_f1_total_mean", "score": 0.9})
    return {
        "epoch": 39,
        "global_step": 1_000_000,
        "pytorch-lightning_version": "1.2.9",
        "state_dict": OrderedDict(
            [(f"generator.{key}", value) for key, value in state.items()]
            + [(f"val_evaluator.scores.lpips.{i}", torch.rand(3)) for i in range(3)]
            + [("test_evaluator.scores.fid.block.weight", torch.rand(2, 2))]
            + [("discriminator.model0.0.weight", torch.rand(2, 2))]
        ),
        "callbacks": {framework["ModelCheckpoint"]: best},
        "lr_schedulers": [],
        "hparams_name": "config",
        "hyper_parameters": hyper,
    }


def test_official_checkpoint(tmp_path: Path, generator: Generator, framework: dict[str, type]) -> None:
    path = tmp_path / "best.ckpt"
    torch.save(lightning_checkpoint(framework, generator.state_dict()), path)
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("best/data.pkl")
    for name in (b"ModelCheckpoint", b"DictConfig", b"defaultdict", b"typing\nAny", b"AnyNode"):
        assert name in pickled, "the look-alike lost what makes the real file hard to read"
    same(load_tensors(path), generator.state_dict())


def test_official_checkpoint_needs_none_of_its_frameworks(
    tmp_path: Path, generator: Generator, framework: dict[str, type], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.ckpt"
    torch.save(lightning_checkpoint(framework, generator.state_dict()), path)
    for name in [n for n in sys.modules if n.split(".")[0] in ("omegaconf", "pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    before = torch.serialization.get_safe_globals()
    same(load_tensors(path), generator.state_dict())
    assert set(torch.serialization.get_safe_globals()) == set(before), "the allowance must end with the call"


def test_two_threads_read_official_checkpoints(
    tmp_path: Path, generator: Generator, framework: dict[str, type]
) -> None:
    path = tmp_path / "best.ckpt"
    torch.save(lightning_checkpoint(framework, generator.state_dict()), path)
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(10):
                same(load_tensors(path), generator.state_dict())
        except BaseException as error:  # noqa: BLE001 - a thread's failure is carried to the test
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("prefix", ["generator.", "model.generator."])
def test_torchscript_is_read_bit_for_bit(tmp_path: Path, generator: Generator, prefix: str) -> None:
    module: torch.nn.Module = Inpainted(generator)
    if prefix.startswith("model."):
        module = Wrapped(module)
    path = tmp_path / "big-lama.pt"
    traced(module.eval(), path)
    official = jit_state(path)
    assert all(key.startswith(prefix) for key in official)
    same(load_tensors(path), {key.removeprefix(prefix): value for key, value in official.items()})
    same(load_tensors(path), generator.state_dict())


class Scripted(torch.nn.Module):
    """What tracing does not make: lists, numbers, other dtypes, views of one storage, an empty one."""

    def __init__(self) -> None:
        super().__init__()
        base = torch.arange(24, dtype=torch.float32)
        self.register_buffer("strided", base.view(4, 6).t())
        self.register_buffer("offset", base[5:9])
        self.register_buffer("small", torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("none", torch.empty(0, 3))
        self.sizes = [1, 2, 3]
        self.ratio = 0.75

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.ratio + self.sizes[0] + self.offset.sum()


def test_torchscript_with_other_attributes(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Scripted()).save(path)
    same(load_tensors(path), jit_state(path))


class Touch:
    """Unpickling this makes a file: the stand-in for any code in a pickle."""

    def __init__(self, call: Any, *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call, self.args


def attacks(victim: Path) -> dict[str, tuple[Touch, str]]:
    return {
        "system": (Touch(os.system, f"touch {victim}"), f"{os.name}.system"),
        "eval": (Touch(builtins.eval, f"open({str(victim)!r}, 'w')"), "builtins.eval"),
        "open": (Touch(builtins.open, str(victim), "w"), "open"),
        "path": (Touch(Path.touch, victim), "getattr"),
    }


@pytest.mark.parametrize("kind", ["system", "eval", "open", "path"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_a_pickle_with_code_is_refused(tmp_path: Path, generator: Generator, kind: str, zipped: bool) -> None:
    victim = tmp_path / "executed"
    attack, named = attacks(victim)[kind]
    path = tmp_path / "w.ckpt"
    torch.save(
        {"state_dict": generator.state_dict(), "x": attack}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(WeightsError, match="refused: it names") as caught:
        load_tensors(path)
    assert named in str(caught.value)
    assert not victim.exists()
    # The look-alike is a real attack: the unsafe way does run it.
    torch.load(path, weights_only=False)
    assert victim.exists()


@pytest.mark.parametrize("kind", ["system", "eval", "open", "path"])
def test_a_torchscript_archive_with_code_is_refused(tmp_path: Path, generator: Generator, kind: str) -> None:
    victim = tmp_path / "executed"
    attack, named = attacks(victim)[kind]
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    traced(Inpainted(generator), good)
    pickled = pickle.dumps({"x": attack}, protocol=2)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled if name.endswith("/data.pkl") else source.read(name))
    with pytest.raises(WeightsError, match="refused: it names") as caught:
        load_tensors(bad)
    assert named in str(caught.value)
    assert not victim.exists()
    pickle.loads(pickled)  # noqa: S301 - shows that the attack is real
    assert victim.exists()


def test_a_storage_out_of_bounds_is_refused(tmp_path: Path, generator: Generator) -> None:
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    traced(Inpainted(generator), good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[: len(content) // 2 // 8 * 8] if "/data/0" in name else content)
    with pytest.raises(WeightsError, match="damaged"):
        load_tensors(bad)


def test_the_oldest_form_a_tar_is_refused(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "w.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            content = pickle.dumps({}, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(WeightsError, match=r"legacy \.tar"):
        load_tensors(path)


@pytest.mark.parametrize(
    ("saved", "message"),
    [({"epoch": 3, "lr": 0.1}, "holds no tensors"), ([torch.zeros(2)], "holds a list")],
)
def test_a_file_without_a_state_dict(tmp_path: Path, saved: object, message: str) -> None:
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        load_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize("form", ["safetensors", "zip", "older", "torchscript", "official"])
def test_damage_is_a_weights_error(
    tmp_path: Path, generator: Generator, framework: dict[str, type], form: str
) -> None:
    path = tmp_path / "w"
    state = generator.state_dict()
    if form == "safetensors":
        save_file(state, path)
    elif form == "torchscript":
        traced(Inpainted(generator), path)
    elif form == "official":
        torch.save(lightning_checkpoint(framework, state), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    dice = random.Random(11)
    refused = 0
    for round_ in range(60):
        spoilt = bytearray(whole)
        if round_ % 2:
            del spoilt[dice.randrange(len(whole)) :]
        else:
            for _ in range(8):
                spoilt[dice.randrange(len(whole))] = dice.randrange(256)
        path.write_bytes(spoilt)
        try:
            load_tensors(path)
        except WeightsError:
            refused += 1
    # Flipped bits inside tensor data are for the SHA-256 to find; every cut must be found here.
    assert refused >= 30


def test_nonsense_and_nothing(tmp_path: Path) -> None:
    for content in (b"", b"\x00" * 64, b"<html>not found</html>", b"PK\x03\x04", b"\x80\x02."):
        (tmp_path / "w").write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            load_tensors(tmp_path / "w")
        assert "weights_only" not in str(caught.value), "torch's advice to load unsafely is not passed on"
