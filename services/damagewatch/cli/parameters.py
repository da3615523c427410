"""Parameters that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Paths = Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.", show_default=False)]
Photo = Annotated[Path, typer.Argument(help="A photo.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Tenant = Annotated[
    str | None, typer.Option(help="Tenant (insurer); default: DAMAGEWATCH_TENANT.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option(help="Only from then on: 30s, 10m, 2h, 7d (ago) or an ISO 8601 time.", show_default=False),
]
