"""Every overlay of k8s/, built as an operator would and held against schemas and our own rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from damagewatch.broker.topics import TopicSpec
from damagewatch.contracts import topics
from damagewatch.settings import Settings, variables

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("base", "overlays/dev", "overlays/prod", "overlays/prod-gpu")
PRODUCTION = ("overlays/prod", "overlays/prod-gpu")
CUSTOM = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())
VERSIONS = ("1.30", "1.37")

Resource = dict[str, Any]


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def resources_of():
    """Builds with kubectl, or with kustomize where that is at hand."""
    built: dict[str, list[Resource]] = {}
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if shutil.which(command[0]) is None:
        pytest.skip("neither kubectl nor kustomize is installed")

    def build(name: str) -> list[Resource]:
        if name not in built:
            said = subprocess.run([*command, K8S / name], check=True, capture_output=True, text=True)
            assert not said.stderr, said.stderr
            built[name] = list(yaml.safe_load_all(said.stdout))
        return built[name]

    return build


@pytest.fixture
def resources(overlay, resources_of) -> list[Resource]:
    return resources_of(overlay)


def one(resources: list[Resource], kind: str, name: str = "") -> Resource:
    (found,) = (r for r in resources if r["kind"] == kind and r["metadata"]["name"].startswith(name))
    return found


def pods(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    for resource in resources:
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield resource["metadata"]["name"], resource["spec"]["template"]["spec"]


def containers(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    for name, pod in pods(resources):
        for container in pod["containers"] + pod.get("initContainers", []):
            yield name, container


def matcher(resources: list[Resource]) -> Resource:
    (container,) = one(resources, "Deployment", "matcher")["spec"]["template"]["spec"]["containers"]
    return container


def settings_of(resources: list[Resource]) -> dict[str, str]:
    return one(resources, "ConfigMap", "matcher-settings")["data"]


def mebibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([MGT]i)", quantity).groups()
    return int(number) * 1024 ** ("MGT".index(unit[0]))


def custom(resource: Resource) -> bool:
    return f"{resource['apiVersion']}/{resource['kind']}" in CUSTOM


@pytest.mark.parametrize("version", VERSIONS)
def test_fits_the_schemas_of_kubernetes(resources, version):
    for resource in resources:
        if not custom(resource):
            kubernetes_validate.validate(resource, version, strict=True)


def test_custom_resources_fit_those_of_their_operators(resources):
    for resource in filter(custom, resources):
        schema = CUSTOM[f"{resource['apiVersion']}/{resource['kind']}"] | {
            "definitions": CUSTOM["definitions"]
        }
        jsonschema.validate(resource["spec"], schema)


def test_every_kind_is_known(resources):
    for resource in resources:
        if "." in resource["apiVersion"] and not resource["apiVersion"].split("/")[0].endswith(".k8s.io"):
            assert custom(resource), resource["apiVersion"]


def test_the_schemas_refuse_what_is_misspelt(resources_of):
    scaled = one(resources_of("overlays/prod"), "ScaledObject")
    schema = CUSTOM["keda.sh/v1alpha1/ScaledObject"] | {"definitions": CUSTOM["definitions"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaled["spec"] | {"minReplicas": 2}, schema)
    deployment = one(resources_of("base"), "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment | {"spek": {}}, VERSIONS[0], strict=True)


def test_the_base_needs_no_operator(resources_of):
    assert not any(custom(resource) for resource in resources_of("base"))


def test_all_is_in_one_namespace(resources):
    for resource in resources:
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == "damagewatch"


def test_images_have_a_version(resources):
    for name, container in containers(resources):
        tag = re.sub(r"@sha256:[0-9a-f]{64}$", "", container["image"]).rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+\.\d+", tag), (name, container["image"])


def test_our_image_has_the_version_of_the_project(resources):
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert matcher(resources)["image"].rpartition(":")[2].startswith(f"{version}-")


def test_pods_are_restricted(resources):
    """The pod security standard `restricted`, which the namespace enforces."""
    assert (
        one(resources, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    for name, pod in pods(resources):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(volume.keys() & {"emptyDir", "secret", "configMap"} for volume in pod.get("volumes", []))
    for name, container in containers(resources):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_nothing_is_unlimited(resources):
    for name, container in containers(resources):
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits.keys() >= {"cpu", "memory", "ephemeral-storage"} <= requests.keys(), name
    for _, pod in pods(resources):
        for volume in pod.get("volumes", []):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})


def test_the_matcher_writes_to_its_volumes_alone(resources):
    container = matcher(resources)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written <= {"/tmp", "/var/lib/damagewatch/evidence"}


def test_memory_holds_the_worst_photos_of_all_threads(resources):
    limits = matcher(resources)["resources"]["limits"]
    threads = int(limits["cpu"])
    in_flight = int(settings_of(resources).get("DAMAGEWATCH_MATCHER__IN_FLIGHT_BYTES", 256 * 2**20)) / 2**20
    assert mebibytes(limits["memory"]) >= threads * 750 + in_flight + 600


def test_memory_is_asked_for_as_it_is_limited(resources_of):
    for name in ("base", *PRODUCTION):
        resources = matcher(resources_of(name))["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]


def test_threads_come_from_the_cgroup(resources):
    """A whole CPU limit and no setting beside it: `settings.usable_cpus` reads the quota."""
    assert "DAMAGEWATCH_ONNX__THREADS" not in settings_of(resources)
    assert re.fullmatch(r"\d+", matcher(resources)["resources"]["limits"]["cpu"])


def test_probes_ask_what_they_should(resources):
    container = matcher(resources)
    startup, live, ready = (container[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    assert live["httpGet"]["path"] == "/livez"
    assert startup["httpGet"]["path"] == ready["httpGet"]["path"] == "/readyz"
    assert min(probe["timeoutSeconds"] for probe in (startup, live, ready)) >= 3
    for name, other in containers(resources):
        assert other.get("livenessProbe") != other.get("readinessProbe") or "livenessProbe" not in other, name


def test_liveness_strikes_before_kafka_takes_the_partitions_away_but_not_within_a_batch(resources):
    settings = Settings()
    probe = matcher(resources)["livenessProbe"]
    noticed = settings.telemetry.heartbeat_timeout + probe["periodSeconds"] * probe["failureThreshold"]
    assert settings.telemetry.heartbeat_timeout >= 2 * settings.matcher.drain_timeout
    assert noticed <= settings.kafka.max_poll_interval


def test_matcher_has_the_time_to_finish(resources):
    settings = Settings()
    given = one(resources, "Deployment", "matcher")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert given >= settings.matcher.drain_timeout + settings.kafka.transaction_timeout + 10


def test_a_drain_is_never_blocked(resources):
    budget = one(resources, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"] == one(resources, "Deployment", "matcher")["spec"]["selector"]


def test_network_is_closed_both_ways_by_default(resources):
    closed = one(resources, "NetworkPolicy", "default-deny")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policy = one(resources, "NetworkPolicy", "matcher")["spec"]
    assert policy["podSelector"] == one(resources, "Deployment", "matcher")["spec"]["selector"]
    for rule in policy["egress"] + policy["ingress"]:
        assert rule["ports"]
        assert rule.get("to") or rule.get("from")
    (outside,) = (peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer)
    assert "169.254.0.0/16" in outside["except"]


def test_network_lets_the_matcher_reach_what_its_settings_name(resources):
    settings = settings_of(resources)
    needed = {
        int(settings["DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS"].rpartition(":")[2]),
        int(settings["DAMAGEWATCH_INDEX__URL"].rpartition(":")[2]),
        53,
    }
    policy = one(resources, "NetworkPolicy", "matcher")["spec"]
    assert needed <= {port["port"] for rule in policy["egress"] for port in rule["ports"]}


def test_monitoring_reaches_the_port_that_the_matcher_has(resources):
    (rule,) = one(resources, "NetworkPolicy", "matcher")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {port["name"] for port in matcher(resources)["ports"]}


def test_settings_exist_and_are_good(resources, monkeypatch, tmp_path):
    known = {name for name, _ in variables()}
    container = matcher(resources)
    given = dict(settings_of(resources))
    for variable in container.get("env", []):
        if variable["name"].startswith("DAMAGEWATCH_"):
            given[variable["name"]] = variable.get("value", "a secret")
    assert given.keys() <= known
    certificate = tmp_path / "ca.crt"
    certificate.touch()
    for name, value in given.items():
        monkeypatch.setenv(name, str(certificate) if name.endswith("CA_FILE") else value)
    Settings()


def test_mounted_files_are_where_the_settings_say(resources):
    mounted = [mount["mountPath"] for mount in matcher(resources)["volumeMounts"]]
    for name, value in settings_of(resources).items():
        if name.endswith("CA_FILE"):
            assert str(Path(value).parent) in mounted


def test_a_changed_setting_rolls_the_pods(resources):
    (source,) = matcher(resources)["envFrom"]
    assert re.fullmatch(r"matcher-settings-[a-z0-9]{10}", source["configMapRef"]["name"])


def test_secrets_are_named_and_never_held(resources):
    assert not [r for r in resources if r["kind"] == "Secret"]
    secret = re.compile(r"PASSWORD|API_KEY|TOKEN|ACCESS_KEY", re.IGNORECASE)
    assert not [name for name in settings_of(resources) if secret.search(name)]
    for _, container in containers(resources):
        for variable in container.get("env", []):
            if secret.search(variable["name"]):
                assert variable["valueFrom"]["secretKeyRef"]["name"]


@pytest.mark.parametrize("name", PRODUCTION)
def test_production_is_encrypted_and_keeps_its_crops(name, resources_of):
    settings = settings_of(resources_of(name))
    assert settings["DAMAGEWATCH_KAFKA__SECURITY_PROTOCOL"] == "SASL_SSL"
    assert settings["DAMAGEWATCH_INDEX__URL"].startswith("https://")
    assert settings["DAMAGEWATCH_EVIDENCE__URL"].startswith("s3://")
    assert "/var/lib/damagewatch/evidence" not in {
        mount["mountPath"] for mount in matcher(resources_of(name))["volumeMounts"]
    }


@pytest.mark.parametrize("name", PRODUCTION)
def test_every_secret_has_a_source(name, resources_of):
    """Strimzi makes one for each user, External Secrets the others; optional ones may be missing."""
    resources = resources_of(name)
    made = {r["spec"]["target"]["name"] for r in resources if r["kind"] == "ExternalSecret"}
    made |= {r["metadata"]["name"] for r in resources if r["kind"] == "KafkaUser"}
    pod = one(resources, "Deployment", "matcher")["spec"]["template"]["spec"]
    asked = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    for variable in matcher(resources)["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef", {"optional": True})
        if not reference.get("optional"):
            asked.add(reference["name"])
    asked |= {r["name"] for r in one(resources, "TriggerAuthentication")["spec"]["secretTargetRef"]}
    assert asked <= made


@pytest.mark.parametrize("name", PRODUCTION)
def test_topics_are_those_of_the_code_and_never_compacted(name, resources_of):
    found = {r["metadata"]["name"]: r["spec"] for r in resources_of(name) if r["kind"] == "KafkaTopic"}
    assert found.keys() == {topics.IMAGES, topics.DETECTIONS, topics.ALERTS, topics.DEAD_LETTERS}
    for topic, spec in found.items():
        assert spec["config"]["cleanup.policy"] == "delete"
        assert spec["config"]["max.message.bytes"] == TopicSpec(topic).max_message_bytes
        assert (spec["replicas"], spec["config"]["min.insync.replicas"]) == (3, 2)


def test_the_matcher_may_do_what_it_does_and_no_more(resources_of):
    users = {r["metadata"]["name"]: r for r in resources_of("overlays/prod") if r["kind"] == "KafkaUser"}
    rights = {
        (acl["resource"]["type"], acl["resource"]["name"], operation)
        for acl in users["matcher"]["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    }
    options = Settings().kafka.options()
    transactional = f"{options.group}-"
    assert options.transaction_arguments()["transactional_id"].startswith(transactional)
    wanted = {
        ("topic", topics.IMAGES, "Read"),
        ("group", options.group, "Read"),
        ("transactionalId", transactional, "Write"),
        *(("topic", topic, "Write") for topic in (topics.DETECTIONS, topics.ALERTS, topics.DEAD_LETTERS)),
    }
    assert rights == wanted | {(kind, name, "Describe") for kind, name, _ in wanted}
    for user in users.values():
        for acl in user["spec"]["authorization"]["acls"]:
            assert "All" not in acl["operations"]
            assert acl["resource"]["name"] != "*"


@pytest.mark.parametrize("name", PRODUCTION)
def test_scaling_avoids_the_known_traps(name, resources_of):
    resources = resources_of(name)
    scaled = one(resources, "ScaledObject")["spec"]
    (trigger,) = (t["metadata"] for t in scaled["triggers"])
    images = one(resources, "KafkaTopic", topics.IMAGES)["spec"]
    settings = settings_of(resources)
    assert trigger["excludePersistentLag"] == "false"
    assert int(trigger["activationLagThreshold"]) > images["partitions"]
    assert int(trigger["version"].split(".")[0]) >= 4
    assert trigger["ensureEvenDistributionOfPartitions"] == "true"
    assert (
        trigger["offsetResetPolicy"] == Settings().kafka.options().consumer_arguments()["auto_offset_reset"]
    )
    assert trigger["consumerGroup"] == Settings().kafka.group
    assert trigger["bootstrapServers"] == settings["DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS"]
    assert scaled["minReplicaCount"] >= 1
    assert images["partitions"] % scaled["maxReplicaCount"] == 0
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"
    deployment = one(resources, "Deployment", "matcher")
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "the autoscaler's, or every apply resets it"


@pytest.mark.parametrize("name", PRODUCTION)
def test_no_pair_is_missed_on_the_cluster(name, resources_of):
    settings = settings_of(resources_of(name))
    copies = int(settings["DAMAGEWATCH_INDEX__REPLICATION_FACTOR"])
    assert copies == int(settings["DAMAGEWATCH_INDEX__WRITE_CONSISTENCY_FACTOR"]) >= 2


def test_gpu_pods_have_one_each(resources_of):
    resources = resources_of("overlays/prod-gpu")
    container = matcher(resources)
    assert container["image"].endswith("-gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    rolling = one(resources, "Deployment", "matcher")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}


def test_rules_are_those_of_prometheus():
    subprocess.run([sys.executable, K8S / "components/monitoring/generate.py", "--check"], check=True)


def test_prometheus_is_shown_the_matchers_under_the_name_that_rules_ask_for(resources_of):
    resources = resources_of("overlays/prod")
    monitor = one(resources, "PodMonitor")["spec"]
    assert monitor["selector"] == one(resources, "Deployment", "matcher")["spec"]["selector"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in matcher(resources)["ports"]}
    jobs = [r["replacement"] for r in endpoint["relabelings"] if r["targetLabel"] == "job"]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert jobs[0] in {config["job_name"] for config in scraped}


def test_the_broker_of_the_small_cluster_can_look_itself_up(resources_of):
    """Else no transaction ends: its markers go to the address that it advertises."""
    resources = resources_of("overlays/dev")
    egress = one(resources, "NetworkPolicy", "kafka")["spec"]["egress"]
    assert {"protocol": "UDP", "port": 53} in [port for rule in egress for port in rule["ports"]]
    assert one(resources, "Service", "kafka")["spec"]["publishNotReadyAddresses"] is True


class TestQdrantValues:
    VALUES = yaml.safe_load((K8S / "components/qdrant/values.yaml").read_text())
    KNOWN = frozenset({
        "replicaCount", "image", "imagePullSecrets", "nameOverride", "fullnameOverride", "args", "env", "service",
        "ingress", "livenessProbe", "readinessProbe", "startupProbe", "additionalLabels", "additionalAnnotations",
        "podAnnotations", "podLabels", "resources", "containerSecurityContext", "podSecurityContext", "lifecycle",
        "updateVolumeFsOwnership", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints",
        "persistence", "snapshotPersistence", "snapshotRestoration", "config", "sidecarContainers", "metrics",
        "serviceAccount", "priorityClassName", "shareProcessNamespace", "podManagementPolicy",
        "terminationGracePeriodSeconds", "podDisruptionBudget", "apiKey", "readOnlyApiKey", "additionalVolumes",
        "additionalVolumeMounts",
    })  # fmt: skip
    """Of the chart's values.schema.json, 1.19."""

    def test_are_values_of_the_chart(self):
        assert self.VALUES.keys() <= self.KNOWN
        assert self.VALUES["config"].keys() <= {"telemetry_disabled", "cluster", "tls", "service", "storage"}

    def test_three_nodes_in_quorum_one_drained_at_a_time(self):
        assert self.VALUES["replicaCount"] == 3
        assert self.VALUES["config"]["cluster"]["enabled"] is True
        assert (
            self.VALUES["podDisruptionBudget"] | {"enabled": True, "maxUnavailable": 1}
            == (self.VALUES["podDisruptionBudget"])
        )

    def test_is_closed_to_strangers(self):
        for key in ("apiKey", "readOnlyApiKey"):
            assert self.VALUES[key]["valueFrom"]["secretKeyRef"]["name"] == "qdrant-api-key"
        assert self.VALUES["config"]["service"]["enable_tls"] is True
        assert self.VALUES["config"]["cluster"]["p2p"]["enable_tls"] is True
        assert self.VALUES["config"]["service"]["enable_snapshot_url_recovery"] is False
        assert self.VALUES["image"]["useUnprivilegedImage"] is True

    def test_copies_are_those_the_matcher_asks_for(self, resources_of):
        settings = settings_of(resources_of("overlays/prod"))
        collection = self.VALUES["config"]["storage"]["collection"]
        assert str(collection["replication_factor"]) == settings["DAMAGEWATCH_INDEX__REPLICATION_FACTOR"]
        assert int(settings["DAMAGEWATCH_INDEX__REPLICATION_FACTOR"]) <= self.VALUES["replicaCount"]
        assert int(settings["DAMAGEWATCH_INDEX__SHARDS"]) % self.VALUES["replicaCount"] == 0
