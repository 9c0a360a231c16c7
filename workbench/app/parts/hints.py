"""Short explanations for people who meet compression for the first time."""

from __future__ import annotations

import html

HINTS: dict[str, str] = {
    "What is a group size?": (
        "Weights are stored as small whole numbers and a scale. A group is how many neighbouring"
        " weights share one scale: smaller groups follow the weights more closely, and store more"
        " scales. 128 adds about 0.25 bits per weight, 32 adds about 1."
    ),
    "What is predicted, what is measured?": (
        "A hollow marker is a prediction from one table of every layer under every scheme: nothing"
        " was run. A solid marker is a model that was really compressed and evaluated. Its bar is"
        " the 95 % interval."
    ),
    "Why did pruning not make the file smaller?": (
        "Zeros that are stored like any other number take their place. Add a step that packs them,"
        " or remove whole blocks or neurons, which leaves an ordinary, smaller model."
    ),
    "Why did 2:4 not get faster?": (
        "Keeping two of four weights is faster only on hardware with sparse matrix units, which"
        " most CPUs do not have. Latency here is measured on your machine, never assumed."
    ),
    "Which method first?": (
        "GPTQ at 4 bits is nearly free on most models. At 3 bits GPTQ and AWQ differ, so try both;"
        " at 2 bits use small groups. RTN needs no calibration and is the yardstick."
    ),
    "What does the interval tell me?": (
        "Two models that are judged by a few hundred examples can differ by chance. Where the"
        " interval reaches below your bar, the run passes only probably; more evaluation data"
        " narrows it."
    ),
}
"""Questions and answers, in the order in which they come up."""


def hints_html() -> str:
    """Return all hints as disclosures that the keyboard reaches."""
    parts = [
        f"<details><summary>{html.escape(question)}</summary><p>{html.escape(answer)}</p></details>"
        for question, answer in HINTS.items()
    ]
    return f'<div class="wb-hints">{"".join(parts)}</div>'
