"""Tasks of EleutherAI's lm-evaluation-harness, by name or from local task files."""

from workbench.tasks.harness.configs import PREFIX, TASK_FILES
from workbench.tasks.harness.task import HarnessTask

__all__ = ["PREFIX", "TASK_FILES", "HarnessTask"]
