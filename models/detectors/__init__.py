"""Detectors, one a file, each behind `cleanplate.models.types.Detector`: images in, regions out.

`text` lines and their strokes, `faces`, `plates` (lines that read like one). `onnx`, `tiles`, `lines` and
`reading` are the parts that they share.
"""
