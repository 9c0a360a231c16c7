"""Errors that a user can act on: each message says what was given, what is accepted, what to do."""

from __future__ import annotations


class WorkbenchError(Exception):
    """Base class of every error that the workbench raises on purpose."""


class ConfigError(WorkbenchError, ValueError):
    """A step, recipe or option has a value that is not accepted."""


class DataError(WorkbenchError, ValueError):
    """The user's data cannot be used as a task."""


class ModelNotFoundError(WorkbenchError, LookupError):
    """No model is found under the given reference."""


class HubUnreachableError(WorkbenchError, ConnectionError):
    """The model hub did not answer and the model is not in the local cache."""


class TokenizerMissingError(WorkbenchError, LookupError):
    """The model was found, but no tokenizer with it."""


class UnsupportedArchitectureError(WorkbenchError, ValueError):
    """The model has weights that the workbench cannot handle; the message names them."""


class NotEnoughMemoryError(WorkbenchError, MemoryError):
    """The model is estimated not to fit into the memory that is free."""


class CalibrationError(WorkbenchError, ValueError):
    """The calibration data are too few or give no usable statistics."""


class CompressionError(WorkbenchError, RuntimeError):
    """A solver could not produce a usable weight."""


class UnsafePathError(WorkbenchError, ValueError):
    """A folder states a path, or holds a link, that leads out of it, or to no regular file."""


class NotFiniteError(WorkbenchError, ArithmeticError):
    """A weight or an output is infinite or not a number; the message names the layer."""


class StudyError(WorkbenchError, RuntimeError):
    """A study's folder or journal cannot be used as asked."""


class DiskFullError(StudyError):
    """The disk is full; what was finished before is kept."""


class ExportError(WorkbenchError, RuntimeError):
    """A model cannot be exported as asked; what was there before is still there."""


class CancelledError(WorkbenchError):
    """The operation was cancelled by the user; what was finished before is kept."""
