"""ONNX files through onnxruntime: one way to open them, and one repair of files with frozen shapes.

onnxruntime is imported inside `runtime` only, after its telemetry has been switched off: the Linux wheel
1.32 writes a device identifier to the home folder and uploads events unless ORT_DISABLE_TELEMETRY=1 is in the
environment *before* the import (checked with 1.32.0; `disable_telemetry_events()` comes too late).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.devices import progressed, subnormals_flushed, thread_limit

Floats = npt.NDArray[np.float32]


class Session(Protocol):
    """The part of `onnxruntime.InferenceSession` that is used here."""

    def run(self, output_names: list[str] | None, feeds: dict[str, Floats]) -> list[Floats]: ...

    def get_inputs(self) -> list[Any]: ...

    def get_outputs(self) -> list[Any]: ...

    def get_modelmeta(self) -> Any: ...

    def get_providers(self) -> list[str]: ...


class _Flushed:
    """A session whose runs flush subnormal numbers in the thread that runs it, whichever that is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.get_modelmeta, self.get_providers = session.get_modelmeta, session.get_providers

    def run(self, output_names: list[str] | None, feeds: dict[str, Floats]) -> list[Floats]:
        with subnormals_flushed():
            outputs = self._session.run(output_names, feeds)
        progressed()
        return outputs


CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
"""The default search tries every algorithm of every convolution for each new size of input, and pictures have many."""


def runtime() -> Any:
    """onnxruntime, imported with its telemetry switched off."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def providers(device: str) -> list[tuple[str, dict[str, str]]]:
    """What onnxruntime runs networks of a worker on `device` with, first choice first: CUDA where the worker has a GPU
    and this onnxruntime was built for it (the extra `gpu`)."""
    cuda = device != "cpu" and CUDA in runtime().get_available_providers()
    return [*([(CUDA, CUDA_OPTIONS)] if cuda else []), ("CPUExecutionProvider", {})]


def open_session(model: Path | str | bytes, threads: int | None = None, device: str = "cpu") -> Session:
    """Open a model file (or its bytes), as `providers` says.

    threads: CPU threads for one run; None = as many as `devices.limit_threads` gave this process, else one.
    Raises FileNotFoundError when there is no file, ValueError for one that onnxruntime cannot open.
    """
    count = thread_limit() if threads is None else threads
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise FileNotFoundError(f"no model file at {model}")
    options = runtime().SessionOptions()
    options.intra_op_num_threads = count
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Input sizes change from image to image: the arena would keep the largest plan of each size for ever.
    options.enable_mem_pattern = False
    # For the session's own threads. That of the first session of a process is also set in the thread that opens it,
    # and stays there: hence the guard around the opening, and around each run.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    source = model if isinstance(model, bytes) else str(model)
    with subnormals_flushed():
        try:
            return _Flushed(runtime().InferenceSession(source, options, providers=providers(device)))
        except Exception as error:
            name = "the model" if isinstance(model, bytes) else str(model)
            message = str(error).strip().partition("\n")[0]
            raise ValueError(f"{name} is no ONNX file that can be opened: {message}") from error


def on_gpu(session: Session) -> bool:
    """Whether it runs there, as `open_session` prefers."""
    return CUDA in session.get_providers()


def levels(mean: Sequence[float], spread: Sequence[float]) -> Floats:
    """3 x 256: what each level of R, G and B is for a network that wants (level - mean) / spread."""
    step = np.arange(256, dtype=np.float32)
    return np.stack([(step - np.float32(m)) / np.float32(s) for m, s in zip(mean, spread, strict=True)])


def planes(crops: Sequence[npt.NDArray[np.uint8]], table: Floats, bgr: bool = False) -> Floats:
    """HWC uint8 RGB of one size -> N x 3 x H x W, each level looked up in `table` (3 x 256, in the order of the
    output); bgr: blue first. A tenth of the time of arithmetic on whole arrays, which fills memory five times over."""
    out = np.empty((len(crops), 3, *crops[0].shape[:2]), np.float32)
    for image, crop in zip(out, crops, strict=True):
        channels = cv2.split(crop)
        for plane, channel, row in zip(image, channels[::-1] if bgr else channels, table, strict=True):
            cv2.LUT(channel, row, dst=plane)
    return out


def free_shapes(model: bytes, inputs: dict[str, tuple[int | str, ...]]) -> bytes:
    """A copy of an ONNX model whose named inputs have new shapes and whose outputs state none.

    inputs: input name -> dimensions; a str is a free dimension of that name. onnxruntime infers the rest, so
    this is right only for graphs without a frozen size inside (fully convolutional ones).
    The file is walked as a protocol buffer (onnx.proto: ModelProto.graph 7; GraphProto.input 11, output 12,
    value_info 13; ValueInfoProto.type 2; TypeProto.tensor_type 1; Tensor.shape 2), so the `onnx` package is
    not needed. Raises ValueError when an input is not there or the bytes are no protocol buffer.
    """
    missing = set(inputs)

    def value(payload: bytes, shape: bytes | None) -> bytes:
        return _edit(payload, 2, lambda kind: _edit(kind, 1, lambda tensor: _shaped(tensor, shape)))

    def graph_field(number: int, payload: bytes) -> bytes | None:
        if number == 13:
            return None
        if number == 12:
            return value(payload, None)
        if number == 11:
            name = next(p for n, p, _ in _fields(payload) if n == 1).decode()
            if name in inputs:
                missing.discard(name)
                return value(payload, _shape(inputs[name]))
        return payload

    def graph(payload: bytes) -> bytes:
        parts = []
        for number, body, raw in _fields(payload):
            new = graph_field(number, body) if number in (11, 12, 13) else body
            if new is not None:
                parts.append(raw if new is body else _message(number, new))
        return b"".join(parts)

    out = _edit(model, 7, graph)
    if missing:
        raise ValueError(f"the model has no input named {sorted(missing)}")
    return out


def fixed_weights(model: bytes) -> bytes:
    """A copy of an ONNX model without the inputs that its own initializers fill.

    Old exporters list every weight as an input too (IR version 3 and below), which a caller could then replace:
    onnxruntime takes such weights for variables, so that it neither folds nor lays them out for its convolutions.
    CenterFace runs 2.4 times faster with weights that are fixed, with outputs equal to 4e-5.
    (onnx.proto: GraphProto.initializer 5, input 11; TensorProto.name 8; ValueInfoProto.name 1.) Raises ValueError when
    the bytes are no protocol buffer.
    """

    def graph(payload: bytes) -> bytes:
        fields = list(_fields(payload))
        filled = {_name(body, 8) for number, body, _ in fields if number == 5}
        return b"".join(raw for number, body, raw in fields if number != 11 or _name(body, 1) not in filled)

    return _edit(model, 7, graph)


def _name(message: bytes, field: int) -> bytes:
    return next((payload for number, payload, _ in _fields(message) if number == field), b"")


def _shaped(tensor: bytes, shape: bytes | None) -> bytes:
    kept = b"".join(raw for number, _, raw in _fields(tensor) if number != 2)
    return kept if shape is None else kept + _message(2, shape)


def _shape(dimensions: tuple[int | str, ...]) -> bytes:
    """TensorShapeProto: dim 1 = {dim_value 1 | dim_param 2}."""
    parts = []
    for size in dimensions:
        dim = _message(2, size.encode()) if isinstance(size, str) else b"\x08" + _varint(size)
        parts.append(_message(1, dim))
    return b"".join(parts)


def _edit(message: bytes, number: int, change: Any) -> bytes:
    return b"".join(
        _message(number, change(body)) if found == number else raw for found, body, raw in _fields(message)
    )


def _message(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each field as (number, payload, raw bytes of the field); no payload unless length-delimited."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        body = b""
        if wire == 0:
            _, at = _read_varint(message, at)
        elif wire == 2:
            size, at = _read_varint(message, at)
            body = message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"not a protocol buffer: wire type {wire} at byte {start}")
        if at > len(message):
            raise ValueError("not a protocol buffer: it ends inside a field")
        yield number, body, message[start:at]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("not a protocol buffer: a number does not end")
