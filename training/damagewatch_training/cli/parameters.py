"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option("--data", help="The root of the photos.", exists=True, file_okay=False)]
Run = Annotated[Path, typer.Option(help="Where rendered views and checkpoints lie.")]
Folder = Annotated[Path, typer.Option("--models", help="The folder of models that the service loads.")]
Threads = Annotated[int, typer.Option(help="Threads of torch.", min=1)]
Seed = Annotated[int, typer.Option(help="All chance comes from it.")]
Record = Annotated[bool, typer.Option("--record", help="Write the figures into the manifest.")]
Experiment = Annotated[
    Path | None, typer.Option("--config", help="An experiment's TOML file; none: the defaults.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="key=value of a setting; may be given several times.")
]

RUN = Path("runs")
MODELS = Path("deploy/models")
