"""Tensors in, tensors out: quantization grids, masks, statistics and compressed weights."""
