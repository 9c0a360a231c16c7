"""Apply a recipe to a model: layer by layer, block by block, or what was solved ahead."""
