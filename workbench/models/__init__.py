"""Models: loaded from anywhere, their blocks and layers, which inputs those share, their shape."""
