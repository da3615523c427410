"""What an operator can set: environment variables `DAMAGEWATCH_<FIELD>` and `DAMAGEWATCH_<GROUP>__<FIELD>`.

Everything is read and checked at the start; a mistake is answered with the name of its variable
(`describe_errors`), and so is a variable that does not exist.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

import damagewatch
from damagewatch.broker.deadletter import BreakerPolicy
from damagewatch.broker.options import MAX_MESSAGE_BYTES, KafkaOptions, SaslMechanism, SecurityProtocol
from damagewatch.contracts import codec, topics

if TYPE_CHECKING:  # imported where used: OpenCV costs a second that `damagewatch --help` need not wait for
    from damagewatch.vision.calibration import Thresholds
    from damagewatch.vision.formats import Limits

PREFIX: Final = "DAMAGEWATCH_"
SEPARATOR: Final = "__"

MiB: Final = 1024 * 1024

_OF_TESTS: Final = f"{PREFIX}TEST_"

# Kubernetes sets these in every pod, for each service whose name begins with damagewatch.
_SERVICE_LINK: Final = re.compile(
    r"(?<!_)_(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)


class SettingError(ValueError):
    """A setting that cannot work here, told with the name of its variable."""


def _split(value: object) -> object:
    """Comma-separated text becomes its parts."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


def _worker() -> str:
    """The host's name in the characters that Kafka allows; stable over restarts of a StatefulSet's pod."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:200] or "damagewatch"


def _models_directory() -> Path:
    """Beside the package where it was installed from a wheel, else in the checkout."""
    package = Path(damagewatch.__file__).resolve().parent
    packaged = package / "models"
    return packaged if packaged.is_dir() else package.parents[1] / "deploy" / "models"


def _providers() -> tuple[str, ...]:
    """CUDA first where the extra `gpu` is installed."""
    try:
        importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return ("CPUExecutionProvider",)
    return ("CUDAExecutionProvider", "CPUExecutionProvider")


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: its affinity, or the container's quota (cgroup v2 or v1) if smaller."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for read in (_quota_v2, _quota_v1):
        try:
            quota = read(cgroup)
        except (OSError, ValueError):
            continue
        return max(1, min(cpus, math.ceil(quota)))
    return cpus


def _quota_v2(cgroup: Path) -> float:
    quota, period = (cgroup / "cpu.max").read_text().split()
    return int(quota) / int(period)  # "max" where there is none: a ValueError


def _quota_v1(cgroup: Path) -> float:
    quota, period = (int((cgroup / "cpu" / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period"))
    if quota <= 0:
        raise ValueError("no quota")
    return quota / period


class Group(BaseModel):
    """Settings that belong together: the part of a variable's name before the two underscores."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Topics(Group):
    """Names of the topics."""

    images: str = Field(
        default=topics.IMAGES, min_length=1, description="Topic that claim photos are read from."
    )
    detections: str = Field(
        default=topics.DETECTIONS, min_length=1, description="Topic for what was found in each photo."
    )
    alerts: str = Field(default=topics.ALERTS, min_length=1, description="Topic for damages seen before.")
    dead_letters: str = Field(
        default=topics.DEAD_LETTERS, min_length=1, description="Topic for records that cannot be processed."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Topics:
        if len({self.images, self.detections, self.alerts, self.dead_letters}) < 4:
            raise ValueError("images, detections, alerts and dead_letters must be four different topics")
        return self


class Kafka(Group):
    """Where Kafka is, who we are to it, and how long to wait for it."""

    bootstrap_servers: CommaSeparated = Field(
        default=("127.0.0.1:9092",),
        min_length=1,
        description="Brokers to start from: host:port, comma-separated.",
    )
    security_protocol: SecurityProtocol = Field(
        default=SecurityProtocol.PLAINTEXT, description="PLAINTEXT, SSL (TLS), SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: SaslMechanism = Field(
        default=SaslMechanism.SCRAM_SHA_512,
        description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; where SASL is used.",
    )
    username: str = Field(default="", description="User name; where SASL is used.")
    password: SecretStr = Field(default=SecretStr(""), description="Password; where SASL is used.")
    ca_file: Path | None = Field(
        default=None,
        description="Certificate authorities that sign the brokers' certificates, PEM; unset: the system's.",
    )
    certificate_file: Path | None = Field(
        default=None, description="Our own certificate, PEM; for mutual TLS."
    )
    key_file: Path | None = Field(default=None, description="Key of our own certificate, PEM.")
    key_password: SecretStr = Field(default=SecretStr(""), description="Password of the key.")
    check_hostname: bool = Field(
        default=True, description="Whether a broker's certificate must name its host."
    )

    group: str = Field(default="damagewatch-matcher", description="Consumer group of the matchers.")
    worker: str = Field(
        default_factory=_worker,
        description="Name of this worker in its group, stable over restarts and different for each; unset: "
        "the host's name. Also its group.instance.id and part of its transactional.id.",
    )
    topics: Topics = Field(default_factory=Topics, description="Names of the topics.")

    max_message_bytes: Count = Field(
        default=MAX_MESSAGE_BYTES,
        description="Largest record, in bytes; brokers and topics have to allow it too.",
    )
    connect_timeout: Seconds = Field(
        default=10.0, description="Seconds to wait for a first broker to answer."
    )
    request_timeout: Seconds = Field(
        default=5.0, description="Seconds to wait for the answer to one request."
    )
    delivery_timeout: Seconds = Field(
        default=10.0, description="Seconds until a record must be acknowledged."
    )
    transaction_timeout: Seconds = Field(
        default=15.0,
        description="Seconds after which the broker aborts a transaction that its worker left behind.",
    )
    session_timeout: Seconds = Field(
        default=30.0,
        description="Seconds without a heartbeat after which a worker's partitions go to others.",
    )
    max_poll_interval: Seconds = Field(
        default=120.0, description="Seconds without polling after which a worker's partitions go to others."
    )

    @model_validator(mode="after")
    def _fits(self) -> Kafka:
        self.options()
        return self

    def options(self) -> KafkaOptions:
        """For `damagewatch.broker`.

        Raises:
            OptionsError: the settings contradict each other.
        """
        given = {name: getattr(self, name) for name in Kafka.model_fields if name != "topics"}
        secrets = {name: given[name].get_secret_value() for name in ("password", "key_password")}
        overhead = 64 * 1024
        return KafkaOptions(
            **(given | secrets),
            max_partition_fetch_bytes=self.max_message_bytes + overhead,
            fetch_max_bytes=2 * (self.max_message_bytes + overhead),
        )


class Index(Group):
    """Where damages are remembered."""

    url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+/?$",
        description="Qdrant server, as http(s)://host:port of its gRPC port (6334); unset: in this process.",
    )
    api_key: SecretStr = Field(default=SecretStr(""), description="API key of the Qdrant server.")
    ca_file: Path | None = Field(
        default=None,
        description="Certificate authorities that sign the Qdrant server's certificate, PEM; unset: the system's.",
    )
    path: Path = Field(
        default=Path("data/index"),
        description="Folder of the index in this process; used where no URL is set.",
    )
    timeout: Seconds = Field(default=10.0, description="Seconds to wait for an answer of the Qdrant server.")
    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=30, description="Nearest damages of other claims that are looked at for each damage."
    )
    shards: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Parts that a Qdrant cluster divides the index into when it is made; unset: the server's "
        "default, one a node.",
    )
    replication_factor: Annotated[int, Field(ge=1, le=10)] | None = Field(
        default=None,
        description="Copies of each part that a Qdrant cluster keeps, set when the index is made; unset: the "
        "server's default.",
    )
    write_consistency_factor: Annotated[int, Field(ge=1, le=10)] | None = Field(
        default=None,
        description="Copies that must have a damage before it counts as remembered, set when the index is made. "
        "All of them, so that no pair is missed while a node fails; unset: the server's default.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Index:
        if self.api_key.get_secret_value() and not self.url:
            raise ValueError("api_key is given, but no url to send it to")
        if (self.write_consistency_factor or 1) > (self.replication_factor or 10):
            raise ValueError("write_consistency_factor is larger than replication_factor")
        return self


class Evidence(Group):
    """Where the pictures of damages are kept."""

    url: str = Field(
        default="data/evidence",
        min_length=1,
        description="Folder or object store: a path, file://, s3:// or gs:// (with the extras s3 and gcs).",
    )


class Models(Group):
    """The models that judge."""

    directory: Path = Field(
        default_factory=_models_directory,
        description="Folder of manifest.json and the models; found by itself.",
    )
    next: Path | None = Field(
        default=None,
        description="Folder of the models to change over to, while that lasts: see `damagewatch reindex`.",
    )
    carry_over_rate: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = Field(
        default=20.0,
        description="Damages a second that are embedded anew for the next models; 0: as fast as it goes. The "
        "default of `damagewatch reindex run`, and what a matcher does by itself where the index is in a folder.",
    )


class Onnx(Group):
    """How the models are run."""

    providers: CommaSeparated = Field(
        default_factory=_providers,
        description="ONNX Runtime's execution providers by preference, comma-separated; those missing are "
        "left out. Unset: CUDA where the extra gpu is installed, then the CPU.",
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=usable_cpus,
        description="Photos worked on at once, one thread each; unset: the CPUs that this process may use.",
    )


class PhotoLimits(Group):
    """What one photo may cost."""

    photo_bytes: Count = Field(default=20_000_000, description="Largest photo, in bytes.")
    pixels: Annotated[int, Field(ge=1, le=50_000_000)] = Field(
        default=50_000_000,
        description="Largest photo, in pixels (width x height); not above 50 million, OpenCV's limit here.",
    )
    side: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=65_535, description="Largest width and height, in pixels."
    )
    jpeg_scans: Count = Field(
        default=64,
        description="Most scans of a JPEG; a small file can hold thousands that take minutes.",
    )

    def limits(self) -> Limits:
        """For `damagewatch.vision`."""
        from damagewatch.vision.formats import Limits

        return Limits(
            max_bytes=self.photo_bytes,
            max_pixels=self.pixels,
            max_side=self.side,
            max_scans=self.jpeg_scans,
        )


class References(Group):
    """Photos that travel as an address."""

    allowed: CommaSeparated = Field(
        default=(),
        description="Prefixes of addresses that photos may be fetched from, comma-separated, such as "
        "s3://claims/photos/; unset: none.",
    )
    timeout: Seconds = Field(default=10.0, description="Seconds to fetch one photo.")


class Matcher(Group):
    """How much the matcher takes on at once, and when it stops."""

    consumers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Members of the consumer group in this process; they share the models and the index, so "
        "that an index in a folder, which one process alone may open, can serve several.",
    )

    batch_photos: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=8, description="Most photos of a batch."
    )
    batch_bytes: Count = Field(default=32 * MiB, description="Bytes of photos at which a batch is full.")
    batch_age: Seconds = Field(
        default=0.25, description="Seconds that a photo waits at most for its batch to fill."
    )
    in_flight_photos: Count = Field(
        default=64, description="Photos in work at which no more are fetched (the matcher goes on polling)."
    )
    in_flight_bytes: Count = Field(
        default=256 * MiB, description="Bytes of photos in work at which no more are fetched."
    )
    drain_timeout: Seconds = Field(
        default=20.0, description="Seconds to finish what is in work when asked to stop."
    )
    dead_letter_window: Seconds = Field(
        default=BreakerPolicy().window, description="Seconds over which dead letters are counted."
    )
    dead_letter_ratio: Share = Field(
        default=BreakerPolicy().ratio,
        description="Share of the window's records that may be dead letters, 0 to 1. Above it, and above one "
        "of the two limits below, the stream stops until a person has looked.",
    )
    dead_letter_limit: Count = Field(
        default=BreakerPolicy().limit, description="Dead letters of any reason allowed within the window."
    )
    failure_limit: Count = Field(
        default=BreakerPolicy().failed_limit,
        description="Dead letters allowed within the window because our own code failed.",
    )

    def breaker(self) -> BreakerPolicy:
        """For `damagewatch.broker`."""
        return BreakerPolicy(
            window=self.dead_letter_window,
            ratio=self.dead_letter_ratio,
            limit=self.dead_letter_limit,
            failed_limit=self.failure_limit,
        )


class Alerting(Group):
    """What becomes an alert. The models' manifest has the thresholds that were measured."""

    similar_damage: bool = Field(
        default=False,
        description="Whether damages that only look alike, without geometry to tell, are alerts too.",
    )
    same_damage_probability: Share | None = Field(
        default=None,
        description="Probability from which a pair is SAME_DAMAGE, 0 to 1; unset: the manifest's.",
    )
    similar_damage_cosine: Share | None = Field(
        default=None, description="Cosine from which a pair is SIMILAR_DAMAGE, 0 to 1; unset: the manifest's."
    )

    def thresholds(self, measured: Thresholds) -> Thresholds:
        """The manifest's thresholds with the operator's in their place.

        Raises:
            SettingError: similar damages are wanted, and nobody says from which cosine on.
        """
        cosine = self.similar_damage_cosine or measured.similar_damage
        if self.similar_damage and cosine is None:
            raise SettingError(
                f"{PREFIX}ALERTING{SEPARATOR}SIMILAR_DAMAGE_COSINE: must be set, since the models' manifest "
                "has no threshold for similar damages"
            )
        return measured.model_copy(
            update={
                "same_damage": self.same_damage_probability or measured.same_damage,
                "similar_damage": cosine if self.similar_damage else None,
            }
        )


class Telemetry(Group):
    """Health, metrics and logs."""

    host: str = Field(default="127.0.0.1", description="Address that /livez, /readyz and /metrics listen on.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=9464, description="Port that they listen on; 0: any free one, which the log names."
    )
    heartbeat_timeout: Seconds = Field(
        default=60.0, description="Seconds without polling after which /livez says that the matcher hangs."
    )
    refused_wait: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=0.0,
        description="Seconds that a matcher whose models are refused goes on answering probes and Prometheus, "
        "so that somebody learns of it, before it ends; 60 where it is restarted by itself.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is logged: DEBUG, INFO, WARNING or ERROR."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="json, console, or auto: console on a terminal, else json."
    )


class Tracing(Group):
    """Traces of photos, by OpenTelemetry; needs the extra tracing."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        description="Where spans are sent, OTLP over HTTP, such as http://collector:4318/v1/traces; unset: nowhere.",
    )
    share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01,
        description="Share of the photos traced whose sender does not say whether to, 0 to 1.",
    )


class Settings(BaseSettings):
    """All settings, from the environment.

    Raises:
        pydantic.ValidationError: on making it, for what `describe_errors` then tells.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    tenant: str = Field(
        default=codec.DEFAULT_TENANT,
        min_length=1,
        max_length=codec.MAX_NAME,
        description="Tenant (insurer) of photos that name none.",
    )
    debug: bool = Field(default=False, description="Whether the command line shows tracebacks.")
    kafka: Kafka = Field(default_factory=Kafka)
    index: Index = Field(default_factory=Index)
    evidence: Evidence = Field(default_factory=Evidence)
    models: Models = Field(default_factory=Models)
    onnx: Onnx = Field(default_factory=Onnx)
    limits: PhotoLimits = Field(default_factory=PhotoLimits)
    references: References = Field(default_factory=References)
    matcher: Matcher = Field(default_factory=Matcher)
    alerting: Alerting = Field(default_factory=Alerting)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    tracing: Tracing = Field(default_factory=Tracing)

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.limits.photo_bytes > self.kafka.max_message_bytes:
            raise ValueError("limits.photo_bytes is larger than kafka.max_message_bytes")
        if self.matcher.in_flight_bytes < self.kafka.max_message_bytes:
            raise ValueError(
                "matcher.in_flight_bytes is smaller than kafka.max_message_bytes: no room for one photo"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code, then the environment."""
        return init_settings, _Environment(settings_cls)


class _Environment(PydanticBaseSettingsSource):
    """Every variable with our prefix, also those that no field knows: the model then refuses them by name."""

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for variable in sorted(os.environ):  # a group before its fields
            value = os.environ[variable]
            foreign = variable.startswith(_OF_TESTS) or _SERVICE_LINK.search(variable)
            if not variable.startswith(PREFIX) or foreign or not value:
                continue
            *groups, field = variable.removeprefix(PREFIX).lower().split(SEPARATOR)
            place = values
            for group in groups:
                place = place.setdefault(group, {})
                if not isinstance(place, dict):
                    break  # the group itself is set to a text, which is refused
            else:
                place[field] = value
        return values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # not used: __call__ knows all at once


def variables(model: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[tuple[str, FieldInfo]]:
    """Name and field of every variable."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, f"{prefix}{name.upper()}{SEPARATOR}")
        else:
            yield f"{prefix}{name.upper()}", field


def rows(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Of every variable its name, value, default and meaning; secrets masked."""
    return [
        (
            variable,
            _shown(_value(settings, variable)),
            _shown(field.get_default(call_default_factory=True)),
            meaning,
        )
        for variable, field in variables()
        if (meaning := field.description or "")
    ]


def describe_errors(error: ValidationError) -> list[str]:
    """One line for each mistake, headed by the variable that it is in; secrets are not repeated."""
    known = dict(variables())
    lines: list[str] = []
    for mistake in error.errors(include_url=False, include_context=False):
        parts = [str(part).upper() for part in mistake["loc"]]
        variable = PREFIX + SEPARATOR.join(parts)
        field = next(
            (
                name
                for end in range(len(parts), 0, -1)
                if (name := PREFIX + SEPARATOR.join(parts[:end])) in known
            ),
            None,
        )
        if mistake["type"] == "extra_forbidden":
            lines.extend(_unknown(name, known) for name in _leaves(variable, mistake["input"]))
        elif field is not None:
            secret = known[field].annotation is SecretStr
            given = "" if secret else f" (it is {str(mistake['input'])[:100]!r})"
            lines.append(f"{field}: {mistake['msg'].removeprefix('Value error, ')}{given}")
        elif mistake["type"] == "model_type":
            lines.append(f"{variable}: is a group of settings; their names begin with {variable}{SEPARATOR}")
        else:
            group = f"{variable}{SEPARATOR}*" if parts else f"{PREFIX}*"
            lines.append(f"{group}: {mistake['msg'].removeprefix('Value error, ')}")
    return lines


def _unknown(variable: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.8)
    return f"{variable}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _leaves(variable: str, value: object) -> Iterator[str]:
    """The variables that a nested value was made of."""
    if not isinstance(value, dict):
        yield variable
        return
    for name, inner in value.items():
        yield from _leaves(f"{variable}{SEPARATOR}{str(name).upper()}", inner)


def _value(settings: Settings, variable: str) -> object:
    value: object = settings
    for name in variable.removeprefix(PREFIX).lower().split(SEPARATOR):
        value = getattr(value, name)
    return value


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case tuple():
            return ",".join(str(part) for part in value)
        case bool():
            return str(value).lower()
        case _:
            return str(value)  # a SecretStr shows asterisks, or nothing where it is empty
