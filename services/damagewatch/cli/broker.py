"""Commands on Kafka itself: the development broker, and the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.settings import Settings

PANEL = "Set-up"

kafka_app = typer.Typer(
    no_args_is_help=True,
    help="The development broker: a real Apache Kafka of one node, without Java or Docker to install.",
)
topics_app = typer.Typer(no_args_is_help=True, help="The topics that damagewatch reads and writes.")

Directory = Annotated[Path, typer.Option(help="Folder that the broker lives in.")]
_HERE = Path("data/kafka")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(kafka_app, name="kafka", rich_help_panel=PANEL)
    app.add_typer(topics_app, name="topics", rich_help_panel=PANEL)


@kafka_app.command("up")
def kafka_up(
    directory: Directory = _HERE,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 9092,
) -> None:
    """Start the development broker, wait until it answers, and print its address.

    The first time some 45 MB are fetched. For production use a Kafka cluster.

    Examples:

      damagewatch kafka up && damagewatch topics create
    """
    from damagewatch.broker.development import DevelopmentKafka, DevelopmentKafkaError

    try:
        output.line(DevelopmentKafka(directory, port=port, progress=output.note).up())
    except DevelopmentKafkaError as error:
        raise Failure(str(error)) from None


@kafka_app.command("down")
def kafka_down(directory: Directory = _HERE) -> None:
    """Stop the development broker. What it stored stays for the next start."""
    from damagewatch.broker.development import DevelopmentKafka, DevelopmentKafkaError

    try:
        stopped = DevelopmentKafka(directory, progress=output.note).down()
    except DevelopmentKafkaError as error:
        raise Failure(str(error)) from None
    output.line("stopped" if stopped else "was not running")


@kafka_app.command("status")
def kafka_status(directory: Directory = _HERE) -> None:
    """Tell whether the development broker runs. Exit code 1 where it does not."""
    from damagewatch.broker.development import DevelopmentKafka

    status = DevelopmentKafka(directory).status()
    if not status.running:
        raise Failure(f"no broker runs in {directory}")
    output.line(f"running\t{status.bootstrap}\tpid {status.pid}\tlog {status.log}")


@topics_app.command("create")
def create_topics(
    partitions: Annotated[
        int, typer.Option(min=1, help="Of each topic; the most matchers that can share the work.")
    ] = 6,
    replication: Annotated[
        int, typer.Option(min=-1, help="Copies of each partition; -1: the broker's default.")
    ] = -1,
    retention_days: Annotated[
        float, typer.Option(min=0.001, help="Days that photos, detections and dead letters are kept.")
    ] = 7,
    alert_retention_days: Annotated[float, typer.Option(min=0.001, help="Days that alerts are kept.")] = 90,
    max_message_bytes: Annotated[
        int | None,
        typer.Option(min=1024, help="Largest record; default: DAMAGEWATCH_KAFKA__MAX_MESSAGE_BYTES."),
    ] = None,
) -> None:
    """Create the topics that do not exist yet. Those that do are left as they are.

    Examples:

      damagewatch topics create --partitions 24 --replication 3
    """
    from damagewatch.broker.topics import DAY_MS, Topics, TopicSpec

    settings = Settings()
    names = settings.kafka.topics
    days = {
        names.images: retention_days,
        names.detections: retention_days,
        names.alerts: alert_retention_days,
        names.dead_letters: retention_days,
    }
    topics = Topics(settings.kafka.options())
    for name, kept in days.items():
        spec = TopicSpec(
            name,
            partitions=partitions,
            replication=replication,
            retention_ms=round(kept * DAY_MS),
            max_message_bytes=max_message_bytes or settings.kafka.max_message_bytes,
        )
        output.line(f"{name}\t{'created' if topics.create(spec) else 'exists'}")
