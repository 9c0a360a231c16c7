"""How other tools pack integer codes: tensors in, tensors out, one format per file.

Readers and writers share these. ``pack`` takes a
:class:`workbench.tensors.weights.QuantizedWeight` and returns the tensors of one layer by their
names in the checkpoint; ``unpack`` undoes it.
"""
