"""`python -m trials <name>`: see `--help`. Exit code 0 only if the bar is met, 1 if not, 2 for wrong usage."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import broken, kills, outages, recall
from .photos import trial_set, verdicts_of
from .stand import Tell, TrialError, stand
from .verdict import Verdict


def main() -> int:
    """Runs one trial."""
    options = _parser().parse_args()
    began = time.monotonic()

    def tell(text: str) -> None:
        if not options.quiet:
            print(f"{time.monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)

    try:
        verdict = _run(options, tell)
    except (TrialError, FileNotFoundError) as error:
        print(f"trials: {error}", file=sys.stderr)
        return 1
    verdict.facts["seconds in all"] = round(time.monotonic() - began)
    verdict.print(options.json)
    return 0 if verdict.ok else 1


def _run(options: argparse.Namespace, tell: Tell) -> Verdict:
    verdicts = verdicts_of(options.same_pairs) if options.same_pairs else None
    with stand(tell, options.keep) as (place, broker):
        tell("choosing photos")
        photos = trial_set(
            options.photos,
            place.folder / "photos",
            count=options.count,
            planted=options.planted,
            seed=options.seed,
            verdicts=verdicts,
        )
        match options.trial:
            case "recall":
                return recall.run(place, photos, options.partitions, tell, options.report)
            case "kills":
                return kills.run(place, photos, options.kills, options.partitions, options.seed, tell)
            case "outages":
                return outages.run(
                    place, broker, photos, options.seconds, options.only, options.partitions, tell
                )
            case _:
                return broken.run(place, photos, options.inputs, options.partitions, options.seed, tell)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trials", description="Tries on a real Kafka what damagewatch promises."
    )
    trials = parser.add_subparsers(dest="trial", required=True, metavar="TRIAL")
    for name, module, count, planted in (
        ("recall", recall, 400, 100),
        ("kills", kills, 400, 100),
        ("outages", outages, 200, 50),
        ("broken", broken, 60, 10),
    ):
        summary = (module.__doc__ or "").splitlines()[0]
        trial = trials.add_parser(name, help=summary, description=summary)
        trial.add_argument(
            "--photos",
            type=Path,
            nargs="+",
            default=[],
            metavar="DIR",
            help="folders of photos, each a claim; default: drawn ones",
        )
        trial.add_argument("--count", type=int, default=count, help=f"photos to choose (default: {count})")
        trial.add_argument(
            "--planted", type=int, default=planted, help=f"of them photographed again (default: {planted})"
        )
        trial.add_argument(
            "--partitions",
            type=int,
            default=2,
            help="of the topics; photos of one keep their order (default: 2)",
        )
        trial.add_argument("--seed", type=int, default=7, help="the same seed chooses the same (default: 7)")
        trial.add_argument(
            "--same-pairs",
            type=Path,
            metavar="CSV",
            help="pairs that were judged: columns a, b (paths relative to the table), verdict",
        )
        trial.add_argument("--keep", type=Path, metavar="DIR", help="new folder to leave everything in")
        trial.add_argument("--json", action="store_true", help="print one JSON object")
        trial.add_argument("--quiet", action="store_true", help="no progress")
        if name == "recall":
            trial.add_argument("--report", type=Path, metavar="HTML", help="page of the alerts in doubt")
        if name == "kills":
            trial.add_argument("--kills", type=int, default=20, help="how often (default: 20)")
        if name == "outages":
            trial.add_argument("--seconds", type=float, default=60.0, help="of each outage (default: 60)")
            trial.add_argument(
                "--only", nargs="+", choices=outages.VARIANTS, default=list(outages.VARIANTS), help="variants"
            )
        if name == "broken":
            trial.add_argument("--inputs", type=int, default=300, help="broken records (default: 300)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
