"""One self-contained page for the person who decides."""

from workbench.report.page import Part, Value, code, render, sentence, table

__all__ = ["Part", "Value", "code", "render", "sentence", "table"]
