"""Arrays and tensors: detectors, segmenters, inpainters, LaMa and its training. Knows neither rows nor Ray."""
