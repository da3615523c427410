"""Settings from the environment: mistakes are told by their variable, secrets are not told at all."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from damagewatch.broker.deadletter import BreakerPolicy
from damagewatch.broker.options import KafkaOptions, SaslMechanism, SecurityProtocol
from damagewatch.settings import (
    Alerting,
    Kafka,
    Matcher,
    PhotoLimits,
    Settings,
    describe_errors,
    rows,
    usable_cpus,
    variables,
)
from damagewatch.vision.calibration import Thresholds
from damagewatch.vision.formats import Limits


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("DAMAGEWATCH_"):
            monkeypatch.delenv(name)


def mistakes(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(f"DAMAGEWATCH_{name}", value)
    with pytest.raises(ValidationError) as error:
        Settings()
    return describe_errors(error.value)


class TestDefaults:
    def test_work_without_any_variable(self) -> None:
        settings = Settings()
        assert settings.tenant == "default"
        assert settings.index.url is None
        assert settings.alerting.similar_damage is False
        assert settings.references.allowed == ()

    def test_agree_with_the_parts_that_they_set(self) -> None:
        """Stated twice, so that reading settings needs no OpenCV: once here, once there."""
        assert PhotoLimits().limits() == Limits()
        assert Matcher().breaker() == BreakerPolicy()
        assert Alerting().thresholds(Thresholds()) == Thresholds()
        options, standard = Kafka(worker="w").options(), KafkaOptions(worker="w")
        for name in KafkaOptions.__slots__:
            if name not in {"fetch_max_bytes"}:
                assert getattr(options, name) == getattr(standard, name), name

    def test_models_are_found(self) -> None:
        directory = Settings().models.directory
        assert directory.is_absolute()
        assert directory.name == "models"


class TestEnvironment:
    def test_nested_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "TENANT": "acme",
            "KAFKA__BOOTSTRAP_SERVERS": "a:9092, b:9092,",
            "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA__SASL_MECHANISM": "PLAIN",
            "KAFKA__USERNAME": "matcher",
            "KAFKA__PASSWORD": "hunter2",
            "KAFKA__TOPICS__IMAGES": "photos",
            "INDEX__URL": "https://qdrant:6334",
            "INDEX__API_KEY": "k",
            "MODELS__DIRECTORY": "/models",
            "ONNX__PROVIDERS": "CUDAExecutionProvider,CPUExecutionProvider",
            "ALERTING__SIMILAR_DAMAGE": "true",
            "TELEMETRY__PORT": "",  # empty is unset
        }.items():
            monkeypatch.setenv(f"DAMAGEWATCH_{name}", value)
        settings = Settings()
        assert settings.tenant == "acme"
        assert settings.kafka.topics.images == "photos"
        assert settings.kafka.topics.alerts == "damage.alerts.v1"
        assert settings.index.api_key.get_secret_value() == "k"
        assert settings.models.directory == Path("/models")
        assert settings.onnx.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
        assert settings.alerting.similar_damage is True
        assert settings.telemetry.port == 9464
        options = settings.kafka.options()
        assert options.bootstrap_servers == ("a:9092", "b:9092")
        assert options.security_protocol is SecurityProtocol.SASL_SSL
        assert options.sasl_mechanism is SaslMechanism.PLAIN
        assert (options.username, options.password) == ("matcher", "hunter2")

    def test_variables_that_are_not_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "DAMAGEWATCH_MATCHER_PORT": "tcp://10.0.0.1:9464",
            "DAMAGEWATCH_MATCHER_PORT_9464_TCP": "tcp://10.0.0.1:9464",
            "DAMAGEWATCH_MATCHER_PORT_9464_TCP_ADDR": "10.0.0.1",
            "DAMAGEWATCH_MATCHER_SERVICE_HOST": "10.0.0.1",
            "DAMAGEWATCH_MATCHER_SERVICE_PORT_METRICS": "9464",
            "DAMAGEWATCH_SERVICE_HOST": "10.0.0.1",
            "DAMAGEWATCH_TEST_KAFKA": "127.0.0.1:9092",  # of this test suite
        }.items():
            monkeypatch.setenv(name, value)
        Settings()

    def test_every_variable_takes_its_own_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = Settings()
        for variable, value, _, _ in rows(before):
            monkeypatch.setenv(variable, value)
        assert Settings() == before


class TestMistakes:
    @pytest.mark.parametrize(
        ("variable", "value", "word"),
        [
            ("KAFKA__SECURITY_PROTOCOL", "TLS", "'SASL_SSL'"),
            ("KAFKA__BOOTSTRAP_SERVERS", ",", "at least 1"),
            ("KAFKA__REQUEST_TIMEOUT", "soon", "valid number"),
            ("KAFKA__REQUEST_TIMEOUT", "-1", "greater than 0"),
            ("KAFKA__REQUEST_TIMEOUT", "nan", "finite number"),
            ("INDEX__URL", "qdrant:6334", "pattern"),
            ("LIMITS__PIXELS", "100000000", "50000000"),
            ("MATCHER__DEAD_LETTER_RATIO", "1.5", "less than or equal to 1"),
            ("TELEMETRY__PORT", "65536", "65535"),
            ("TELEMETRY__LOG_LEVEL", "LOUD", "'DEBUG'"),
            ("TENANT", "t" * 257, "at most 256"),
        ],
    )
    def test_a_value(self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, word: str) -> None:
        (line,) = mistakes(monkeypatch, **{variable: value})
        assert line.startswith(f"DAMAGEWATCH_{variable}: ")
        assert word in line

    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("TENNANT", "DAMAGEWATCH_TENANT"),
            ("KAFKA__BOOTSTRAP_SERVER", "DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS"),
            ("KAFAK__USERNAME", "DAMAGEWATCH_KAFKA__USERNAME"),
            ("KAFKA_USERNAME", "DAMAGEWATCH_KAFKA__USERNAME"),
        ],
    )
    def test_a_name(self, monkeypatch: pytest.MonkeyPatch, variable: str, meant: str) -> None:
        assert mistakes(monkeypatch, **{variable: "x"}) == [
            f"DAMAGEWATCH_{variable}: there is no such setting; did you mean {meant}?"
        ]

    def test_a_name_like_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert mistakes(monkeypatch, FOO__BAR="x") == ["DAMAGEWATCH_FOO__BAR: there is no such setting"]

    def test_a_group_is_no_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (line,) = mistakes(monkeypatch, KAFKA="a:9092", KAFKA__USERNAME="x")
        assert line == "DAMAGEWATCH_KAFKA: is a group of settings; their names begin with DAMAGEWATCH_KAFKA__"

    def test_all_are_told_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = mistakes(monkeypatch, TELEMETRY__PORT="x", ONNX__THREADS="0", TENNANT="x")
        assert sorted(line.partition(":")[0] for line in lines) == [
            "DAMAGEWATCH_ONNX__THREADS",
            "DAMAGEWATCH_TELEMETRY__PORT",
            "DAMAGEWATCH_TENNANT",
        ]

    @pytest.mark.parametrize(
        ("environment", "group", "word"),
        [
            ({"KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA__*", "username and password"),
            ({"KAFKA__CA_FILE": "/nowhere.pem", "KAFKA__SECURITY_PROTOCOL": "SSL"}, "KAFKA__*", "ca_file"),
            ({"KAFKA__TRANSACTION_TIMEOUT": "500"}, "KAFKA__*", "transaction_timeout < max_poll_interval"),
            ({"KAFKA__WORKER": "a b"}, "KAFKA__*", "worker"),
            ({"KAFKA__TOPICS__ALERTS": "claims.images.v1"}, "KAFKA__TOPICS__*", "different topics"),
            ({"INDEX__API_KEY": "hunter2"}, "INDEX__*", "no url"),
            ({"KAFKA__MAX_MESSAGE_BYTES": "1000"}, "*", "photo_bytes"),
            ({"MATCHER__IN_FLIGHT_BYTES": "1000"}, "*", "in_flight_bytes"),
        ],
    )
    def test_settings_that_contradict_each_other(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], group: str, word: str
    ) -> None:
        (line,) = mistakes(monkeypatch, **environment)
        assert line.startswith(f"DAMAGEWATCH_{group}: ")
        assert word in line
        assert "hunter2" not in line

    def test_secrets_are_not_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = mistakes(monkeypatch, KAFKA__PASWORD="hunter2", INDEX__API_KEY="hunter2")
        assert len(lines) == 2
        assert "hunter2" not in "".join(lines)

    def test_in_code_as_well(self) -> None:
        with pytest.raises(ValidationError):
            Settings(kafka={"bootstrap": "a:9092"})  # type: ignore[arg-type]


class TestRows:
    def test_every_variable_has_a_meaning(self) -> None:
        told = rows(Settings())
        assert [row[0] for row in told] == [variable for variable, _ in variables()]
        for variable, value, default, meaning in told:
            assert value == default, variable
            assert meaning.endswith("."), variable

    def test_secrets_are_masked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DAMAGEWATCH_INDEX__URL", "http://qdrant:6334")
        monkeypatch.setenv("DAMAGEWATCH_INDEX__API_KEY", "hunter2")
        shown = {variable: (value, default) for variable, value, default, _ in rows(Settings())}
        assert shown["DAMAGEWATCH_INDEX__API_KEY"] == ("**********", "")
        assert shown["DAMAGEWATCH_INDEX__URL"] == ("http://qdrant:6334", "")
        assert "hunter2" not in repr(Settings())


class TestThresholds:
    def test_the_operator_overrides_the_manifest(self) -> None:
        measured = Thresholds(same_damage=0.7, similar_damage=0.8)
        assert Alerting().thresholds(measured).same_damage == 0.7
        assert Alerting().thresholds(measured).similar_damage is None
        assert Alerting(same_damage_probability=0.9).thresholds(measured).same_damage == 0.9
        assert Alerting(similar_damage=True).thresholds(measured).similar_damage == 0.8
        assert (
            Alerting(similar_damage=True, similar_damage_cosine=0.9).thresholds(measured).similar_damage
            == 0.9
        )

    def test_similar_damages_need_a_threshold(self) -> None:
        with pytest.raises(ValueError, match="DAMAGEWATCH_ALERTING__SIMILAR_DAMAGE_COSINE"):
            Alerting(similar_damage=True).thresholds(Thresholds())


class TestCpus:
    @pytest.mark.parametrize(
        ("quota", "cpus"), [("50000 100000", 1), ("150000 100000", 2), ("100000 100000", 1)]
    )
    def test_quota_of_cgroup_v2(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
    ) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
        (tmp_path / "cpu.max").write_text(quota + "\n")
        assert usable_cpus(tmp_path) == cpus

    @pytest.mark.parametrize(("quota", "cpus"), [(250_000, 3), (-1, 64)])
    def test_quota_of_cgroup_v1(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, cpus: int
    ) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(str(quota))
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
        assert usable_cpus(tmp_path) == cpus

    @pytest.mark.parametrize("text", ["max 100000", "", "nonsense"])
    def test_no_quota(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
        (tmp_path / "cpu.max").write_text(text)
        assert usable_cpus(tmp_path) == 3
