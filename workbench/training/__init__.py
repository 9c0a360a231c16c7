"""Training: one loop for all that trains, what is trained, the losses, checkpoints and memory.

The loop is our own, some hundred lines around torch's AdamW. What it must do is what a general
trainer leaves open: end within a second when cancelled, in the middle of a batch; go on after a
kill to byte-identical weights; keep masks in force; write nothing but one file of its own, without
a pickle in it; and print nothing.
"""

from __future__ import annotations

from workbench.training.checkpoints import CheckpointFile
from workbench.training.loop import Trained, train
from workbench.training.losses import Distilled, Labels, Objective
from workbench.training.memory import check_training_memory
from workbench.training.settings import Settings, settings_of
from workbench.training.students import student_of
from workbench.training.trainable import Trainable, trainable_of

__all__ = [
    "CheckpointFile",
    "Distilled",
    "Labels",
    "Objective",
    "Settings",
    "Trainable",
    "Trained",
    "check_training_memory",
    "settings_of",
    "student_of",
    "train",
    "trainable_of",
]
