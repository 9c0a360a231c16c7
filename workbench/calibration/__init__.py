"""The one pass that every method lives on: inputs and gradients, summed for every layer."""
