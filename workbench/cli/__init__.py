"""The terminal: the commands by what they do, their options, and what they print."""

from workbench.cli.commands import main

__all__ = ["main"]
