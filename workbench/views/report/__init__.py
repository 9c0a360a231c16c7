"""One self-contained page for the person who decides."""

from workbench.views.report.page import Part, Value, code, render, sentence, table

__all__ = ["Part", "Value", "code", "render", "sentence", "table"]
