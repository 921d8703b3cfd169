"""Detectors, one a file, each behind `models.regions.Detector`: images in, regions out.

`text` lines and their strokes, `faces`, `plates` (lines that read like one). `onnx`, `tiles`, `lines` and
`reading` are the parts that they share.
"""
