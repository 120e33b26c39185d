"""The manifests: valid, understood by config.env, without secrets, and with numbers that add up."""

import copy
import json
from collections.abc import Callable

import kubernetes_validate
import pytest
import yaml
from gunicorn.config import Config  # type: ignore[import-untyped]
from pydantic import SecretStr

from config.database import get_database_config, get_fleet, get_pgbouncer_config, get_strategy, should_use_pgbouncer
from config.env import CHECKOUT, SECTIONS, Database, Https, Ingest, Web, read
from config.strategies import STRATEGIES
from tests.manifests import (
    CLOUD_RUN,
    DEPLOY,
    DOCUMENTS,
    INI_TEXTS,
    KUSTOMIZATION,
    Document,
    container_of,
    containers_of,
    find,
    parse,
    pod_of,
)

OLDEST, NEWEST = "1.31", "1.37"
FIELDS = {name.upper(): field for section in SECTIONS for name, field in section.model_fields.items()}
SECRETS = {name for name, field in FIELDS.items() if field.annotation is SecretStr or name.endswith("_URL")}
MADE_BY_HAND = {"SECRET_KEY", "DB_PASS", "DB_MONITOR_PASS", "METRICS_TOKEN", "REDIS_PASSWORD"}

WORKLOADS = {name: one for name, one in DOCUMENTS.items() if one["kind"] in ("Deployment", "Job")}
OF_THE_PROJECT = {
    f"{name}: {container['name']}": (document, container)
    for name, document in {**WORKLOADS, "cloudrun": CLOUD_RUN}.items()
    for container in containers_of(document)
    if "poolhouse-pgbouncer" not in container["image"]
}
WEB, WORKER, BEAT = (find("Deployment", f"poolhouse-{name}") for name in ("web", "worker", "beat"))
CENTRAL = find("Deployment", "poolhouse-pgbouncer")

Deploy = Callable[[Document], None]


# The schema.


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_document_is_valid_for_kubernetes(name: str, version: str) -> None:
    assert kubernetes_validate.validate(DOCUMENTS[name], version, strict=True) == version


def test_the_schemas_include_the_newest_kubernetes() -> None:
    assert kubernetes_validate.latest_version().startswith(NEWEST), (
        f"set NEWEST to {kubernetes_validate.latest_version()}"
    )


def test_an_unknown_field_is_refused() -> None:
    wrong = copy.deepcopy(WEB)
    container_of(wrong, "pgbouncer")["restartPolicies"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolicies"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_pod_of_cloud_run_is_a_valid_pod() -> None:
    cloud_run_s_own = {"containerConcurrency", "timeoutSeconds"}
    spec = {key: value for key, value in pod_of(CLOUD_RUN).items() if key not in cloud_run_s_own}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "spec": spec}, NEWEST, strict=True)


def test_cloud_run_s_service_has_the_shape_of_a_knative_service() -> None:
    assert (CLOUD_RUN["apiVersion"], CLOUD_RUN["kind"]) == ("serving.knative.dev/v1", "Service")
    assert set(CLOUD_RUN) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(CLOUD_RUN["spec"]) == {"template", "traffic"}
    for metadata in (CLOUD_RUN["metadata"], CLOUD_RUN["spec"]["template"]["metadata"]):
        assert all(isinstance(value, str) for value in metadata["annotations"].values())


def test_cloud_run_starts_pgbouncer_first_and_sends_requests_to_the_web() -> None:
    annotations = CLOUD_RUN["spec"]["template"]["metadata"]["annotations"]
    assert json.loads(annotations["run.googleapis.com/container-dependencies"]) == {"web": ["pgbouncer"]}
    assert "startupProbe" in container_of(CLOUD_RUN, "pgbouncer"), "without one, the web does not wait"
    assert [one["name"] for one in containers_of(CLOUD_RUN) if "ports" in one] == ["web"], "only one may have ports"


# What belongs together.


def test_the_images_have_the_names_that_compose_builds() -> None:
    compose = yaml.safe_load((CHECKOUT / "docker-compose.dev.yml").read_text())
    built = {service["image"] for service in compose["services"].values() if "build" in service}
    for document in [*WORKLOADS.values(), CLOUD_RUN]:
        for container in containers_of(document):
            name, _, tag = container["image"].rpartition("/")[2].partition(":")
            assert name in built
            assert tag not in ("", "latest"), f"{container['image']}: what runs must not depend on when it was pulled"


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_mounted_volume_and_config_map_exists(name: str) -> None:
    pod = pod_of(WORKLOADS[name])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in containers_of(WORKLOADS[name]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        for source in container.get("envFrom", []):
            find("ConfigMap", source["configMapRef"]["name"])
    for volume in volumes.values():
        if "configMap" in volume:
            find("ConfigMap", volume["configMap"]["name"])
        if "persistentVolumeClaim" in volume:
            find("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


@pytest.mark.parametrize("name", WORKLOADS)
def test_nothing_runs_as_root_or_writes_to_its_image(name: str) -> None:
    pod = pod_of(WORKLOADS[name])
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == 10001, "a number, since an image's user by name cannot be checked"
    assert pod["automountServiceAccountToken"] is False, "its token is mounted below /run/secrets, which is read-only"
    for container in containers_of(WORKLOADS[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= set(container["resources"])


def test_services_budgets_and_the_autoscaler_find_their_pods() -> None:
    deployments = [one for one in DOCUMENTS.values() if one["kind"] == "Deployment"]
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments]
    for one in deployments:
        assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    for one in DOCUMENTS.values():
        if one["kind"] == "Service":
            assert one["spec"]["selector"] in labels
        if one["kind"] == "PodDisruptionBudget":
            assert one["spec"]["selector"]["matchLabels"] in labels
    assert find("HorizontalPodAutoscaler", "poolhouse-web")["spec"]["scaleTargetRef"]["name"] == "poolhouse-web"
    assert "replicas" not in WEB["spec"], "each apply would undo what the autoscaler did"


# The environment.


def environment_of(container: Document) -> dict[str, str]:
    """Return the variables of a container, without secrets."""
    maps = [find("ConfigMap", source["configMapRef"]["name"])["data"] for source in container.get("envFrom", [])]
    told = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
    return {name: value for part in [*maps, told] for name, value in part.items()}


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Set the variables of a container in this process, with secrets."""

    def take(container: Document) -> None:
        for name in FIELDS:
            monkeypatch.delenv(name, raising=False)
        for name, value in {**environment_of(container), **dict.fromkeys(MADE_BY_HAND, "s" * 32)}.items():
            monkeypatch.setenv(name, value)

    return take


@pytest.mark.parametrize("name", OF_THE_PROJECT)
def test_config_env_accepts_every_variable_with_its_value(name: str, deployed: Deploy) -> None:
    _, container = OF_THE_PROJECT[name]
    named = {*environment_of(container), *(one["name"] for one in container.get("env", []))}
    assert named <= set(FIELDS), f"{sorted(named - set(FIELDS))}: config/env.py has no such variable"
    deployed(OF_THE_PROJECT[name][1])
    for section in SECTIONS:
        read(section)
    get_strategy()


@pytest.mark.parametrize("name", OF_THE_PROJECT)
def test_secrets_come_from_secrets(name: str) -> None:
    document, container = OF_THE_PROJECT[name]
    assert not SECRETS & set(environment_of(container))
    if document is CLOUD_RUN:
        given = {one["name"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})}
        assert given == MADE_BY_HAND
        return
    (mounted,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/run/secrets"]
    (volume,) = [one for one in pod_of(document)["volumes"] if one["name"] == mounted["name"]]
    assert volume["secret"]["secretName"] == "poolhouse"


# What each container reads: the web signs sessions, and asks as the monitor; config.env requires the first of all.
OF_WORKERS = {"SECRET_KEY", "DB_PASS", "REDIS_PASSWORD"}
READS = {
    "web": MADE_BY_HAND,
    "worker": OF_WORKERS,
    "beat": OF_WORKERS,
    "migrate": OF_WORKERS,
    "statement-timeout": {"DB_PASS"},
    "pgbouncer": {"users.txt"},
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_container_mounts_the_secrets_that_it_reads_and_no_others(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod_of(WORKLOADS[name])["volumes"]}
    for container in containers_of(WORKLOADS[name]):
        mounted = [volumes[mount["name"]] for mount in container["volumeMounts"]]
        secrets = [volume["secret"] for volume in mounted if "secret" in volume]
        keys = {item["key"] for secret in secrets for item in secret.get("items", [{"key": "users.txt"}])}
        assert keys == READS[container["name"]], container["name"]
        assert all("items" in secret for secret in secrets if secret["secretName"] == "poolhouse")


def test_compose_gives_each_service_the_secrets_that_it_reads_and_no_others() -> None:
    compose = yaml.safe_load((CHECKOUT / "docker-compose.dev.yml").read_text())
    (script,) = compose["services"]["secrets"]["command"]
    given = {line.split()[1]: set(line.split()[2:]) for line in script.splitlines() if line.startswith("give ")}
    folders = dict(volume.split(":")[:2] for volume in compose["services"]["secrets"]["volumes"])
    reads = {
        "timescale": {"DB_PASS", "DB_MONITOR_PASS"},
        "redis": {"REDIS_PASSWORD"},
        "pgbouncer": {"DB_PASS", "DB_MONITOR_PASS"},
        "migrate": OF_WORKERS,
        "backend": MADE_BY_HAND,
        "worker": OF_WORKERS,
        "beat": OF_WORKERS,
        "prometheus": {"METRICS_TOKEN"},
    }
    for name, service in compose["services"].items():
        if name != "secrets":
            volumes = [volume.split(":")[0] for volume in service["volumes"] if ":/run/secrets" in volume]
            assert {secret for volume in volumes for secret in given[folders[volume].split("/")[-1]]} == reads[name]
            superuser = any(volume.startswith("superuser:") for volume in service["volumes"])
            assert superuser == (name == "timescale")
            if "env_file" in service:
                assert {*MADE_BY_HAND, "POSTGRES_PASSWORD"} <= {
                    key for key, value in service["environment"].items() if value == ""
                }, "what .env has would be handed on"


def test_an_image_can_be_named_by_its_digest_in_one_place() -> None:
    images = yaml.safe_load(KUSTOMIZATION.read_text())["images"]
    used = {container["image"].partition(":")[0] for one in WORKLOADS.values() for container in containers_of(one)}
    assert {image["name"] for image in images} == used


# The network.

POLICIES = [one["spec"] for one in DOCUMENTS.values() if one["kind"] == "NetworkPolicy"]
DATABASE, BROKER, POOLER, STORE = ("timescale", 5432), ("redis", 6379), ("poolhouse-pgbouncer", 6432), ("store", 443)
MAY_REACH = {
    "poolhouse-web": {DATABASE, BROKER, POOLER, STORE},
    "poolhouse-worker": {DATABASE, BROKER, STORE},
    "poolhouse-beat": {DATABASE, BROKER},
    "poolhouse-migrate": {DATABASE, BROKER, STORE},
    "poolhouse-pgbouncer": {DATABASE},
}
MAY_BE_REACHED = {
    "poolhouse-web": {("ingress-nginx", "http"), ("monitoring", "http")},
    "poolhouse-pgbouncer": {("poolhouse-web", "pgbouncer")},
}


def selects(policy: Document, app: str) -> bool:
    selector = policy["podSelector"]
    listed = [value for one in selector.get("matchExpressions", []) for value in one["values"]]
    return not selector or selector.get("matchLabels") == {"app": app} or app in listed


def names_of(peer: Document) -> list[str]:
    """Return the name that these tests use for a peer of a policy."""
    listed = [value for one in peer.get("podSelector", {}).get("matchExpressions", []) for value in one["values"]]
    return listed or [name_of(peer)]


def name_of(peer: Document) -> str:
    if "ipBlock" in peer:
        return "store"
    if "namespaceSelector" in peer:
        return str(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
    return str(peer["podSelector"]["matchLabels"]["app"])


def allowed(app: str, direction: str, peers: str) -> set[tuple[str, object]]:
    """Return the peers that a pod may connect to, or accept connections of, and the ports."""
    rules = [rule for policy in POLICIES if selects(policy, app) for rule in policy.get(direction, [])]
    return {
        (name, port["port"])
        for rule in rules
        for peer in rule[peers]
        for name in names_of(peer)
        for port in rule["ports"]
    }


def test_connections_are_denied_unless_listed() -> None:
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in POLICIES


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_may_connect_to_its_servers_and_accepts_its_clients(name: str) -> None:
    app = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]["app"]
    assert allowed(app, "egress", "to") - {("kube-system", 53)} == MAY_REACH[app]
    assert ("kube-system", 53) in allowed(app, "egress", "to"), "it finds the others by name"
    assert allowed(app, "ingress", "from") == MAY_BE_REACHED.get(app, set())


@pytest.mark.parametrize("server", [DATABASE, BROKER])
def test_a_server_in_the_cluster_accepts_only_the_listed_pods(server: tuple[str, int]) -> None:
    clients = {app for app, reaches in MAY_REACH.items() if server in reaches}
    assert allowed(server[0], "ingress", "from") == {(app, server[1]) for app in clients}


def test_the_network_policies_have_the_ports_of_the_servers() -> None:
    told = find("ConfigMap", "poolhouse")["data"]
    assert (told["DB_HOST"], int(told["DB_PORT"])) == DATABASE
    assert (told["REDIS_HOST"], int(told["REDIS_PORT"])) == BROKER


@pytest.mark.parametrize("document", [WEB, CLOUD_RUN], ids=["kubernetes", "cloudrun"])
def test_the_web_trusts_the_header_that_its_proxy_sets(document: Document, deployed: Deploy) -> None:
    deployed(container_of(document, "web"))
    assert read(Https).secure_proxy_ssl_header == "X-Forwarded-Proto", "with https required, it would redirect for ever"


def test_the_files_contain_no_password() -> None:
    assert SECRETS >= MADE_BY_HAND
    assert not [name for name, one in DOCUMENTS.items() if one["kind"] == "Secret"]
    for name, text in INI_TEXTS.items():
        assert "password" not in parse(text)["databases"]["poolhouse_transaction"], name


def test_the_readme_creates_the_secrets_that_are_mounted() -> None:
    text = (DEPLOY / "README.md").read_text()
    secrets = {
        volume["secret"]["secretName"]
        for document in [*WORKLOADS.values(), CLOUD_RUN]
        for volume in pod_of(document)["volumes"]
        if "secret" in volume
    }
    references = {
        one["valueFrom"]["secretKeyRef"]["name"] for one in container_of(CLOUD_RUN, "web")["env"] if "valueFrom" in one
    }
    assert [name for name in sorted(secrets | references | MADE_BY_HAND) if name not in text] == []


# The way to the database.


@pytest.mark.parametrize(
    ("document", "ini", "host"),
    [(WEB, "sidecar", "127.0.0.1"), (CLOUD_RUN, "cloudrun", "127.0.0.1"), (WEB, "central", "poolhouse-pgbouncer")],
)
def test_the_web_connects_to_the_address_and_database_of_pgbouncer(
    document: Document, ini: str, host: str, deployed: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(container_of(document, "web"))
    if ini == "central":
        monkeypatch.setenv("PGBOUNCER_HOST", find("Service", "poolhouse-pgbouncer")["metadata"]["name"])
    offered = parse(INI_TEXTS[ini])
    made = get_pgbouncer_config()
    assert STRATEGIES[get_strategy()].pool_mode == offered["pgbouncer"]["pool_mode"]
    assert (made["HOST"], str(made["PORT"])) == (host, offered["pgbouncer"]["listen_port"])
    server = dict(word.split("=") for word in offered["databases"][made["NAME"]].split())
    direct = get_database_config()
    assert server == {"host": direct["HOST"], "port": str(direct["PORT"]), "dbname": direct["NAME"]}


@pytest.mark.parametrize("name", [name for name in OF_THE_PROJECT if "worker" in name or "migrate" in name])
def test_worker_beat_and_migrate_connect_directly(name: str, deployed: Deploy) -> None:
    deployed(OF_THE_PROJECT[name][1])
    assert not should_use_pgbouncer()


@pytest.mark.parametrize("name", INI_TEXTS)
def test_pgbouncer_is_configured_as_in_the_sandbox(name: str) -> None:
    sandbox = parse("[pgbouncer]\n" + (CHECKOUT / "timescale/pgbouncer.ini").read_text())["pgbouncer"]
    deployed = parse(INI_TEXTS[name])["pgbouncer"]
    assert dict(sandbox).items() <= dict(deployed).items()
    assert deployed["auth_type"] == "scram-sha-256"


# The numbers.


def sizes_of(ini: str) -> dict[str, int]:
    """Return the sizes of a PgBouncer."""
    section = parse(INI_TEXTS[ini])["pgbouncer"]
    return {name: int(section[name]) for name in section if section[name].isdigit()}


def most_pods(deployment: Document, replicas: int) -> int:
    """Return the most pods of a Deployment, with ending ones, which Kubernetes does not count."""
    spec, pod = deployment["spec"], pod_of(deployment)
    if spec["strategy"].get("type") == "Recreate":
        return replicas
    assert spec["minReadySeconds"] >= pod["terminationGracePeriodSeconds"], (
        "two pods could be ending at once: Kubernetes ends the next one after a new one has been ready for this time"
    )
    rolling: dict[str, int] = spec["strategy"]["rollingUpdate"]
    assert rolling["maxSurge"] + rolling["maxUnavailable"] == 1, "more than one would be replaced at once"
    return replicas + rolling["maxSurge"] + 1


def room_of(document: Document) -> int:
    """Return how many connections of the server are available to the project."""
    annotations = document["metadata"]["annotations"]
    return int(annotations["poolhouse/max-connections"]) - int(annotations["poolhouse/reserved-connections"])


def direct_connections(deployed: Deploy) -> int:
    """Return the most connections of workers, beat and the migration."""
    deployed(container_of(WORKER, "worker"))
    processes, each = get_fleet()["worker"]
    workers = most_pods(WORKER, WORKER["spec"]["replicas"]) * processes * each
    return workers + most_pods(BEAT, BEAT["spec"]["replicas"]) + 1


def max_replicas() -> int:
    replicas: int = find("HorizontalPodAutoscaler", "poolhouse-web")["spec"]["maxReplicas"]
    return replicas


@pytest.mark.parametrize("name", INI_TEXTS)
def test_pgbouncer_opens_no_more_than_its_pool(name: str) -> None:
    sizes = sizes_of(name)
    assert sizes["reserve_pool_size"] == 0, "a burst would wait for it for reserve_pool_timeout: put it into the pool"
    assert sizes["max_db_connections"] == sizes["default_pool_size"]


@pytest.mark.parametrize("document", [WEB, CLOUD_RUN], ids=["kubernetes", "cloudrun"])
def test_a_pool_in_the_web_has_no_overflow(document: Document, deployed: Deploy) -> None:
    deployed(container_of(document, "web"))
    is_pooled = STRATEGIES[get_strategy()].is_bounded
    assert not is_pooled or read(Database).db_max_overflow == 0, (
        "set DB_MAX_OVERFLOW=0: each checkout of an overflow connection logs in again"
    )


def test_the_server_has_room_for_every_sidecar(deployed: Deploy) -> None:
    opened = most_pods(WEB, max_replicas()) * sizes_of("sidecar")["max_db_connections"] + direct_connections(deployed)
    room = room_of(find("ConfigMap", "poolhouse"))
    assert opened + 2 <= room, f"the pods open up to {opened}, a person wants a few, and the server has {room}"
    one_more = most_pods(WEB, max_replicas() + 1) * sizes_of("sidecar")["max_db_connections"]
    assert one_more + direct_connections(deployed) > room, "maxReplicas could be more: it is meant to be what fits"


def test_the_server_has_room_for_the_central_pgbouncers(deployed: Deploy) -> None:
    pods = most_pods(CENTRAL, CENTRAL["spec"]["replicas"])
    opened = pods * sizes_of("central")["max_db_connections"] + direct_connections(deployed)
    assert opened + 2 <= room_of(find("ConfigMap", "poolhouse"))


def test_the_server_has_room_for_twice_the_instances_of_cloud_run() -> None:
    annotations = CLOUD_RUN["metadata"]["annotations"]
    of_all = int(annotations["run.googleapis.com/maxScale"])
    of_one = int(CLOUD_RUN["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"])
    assert of_one <= of_all
    opened = 2 * of_all * sizes_of("cloudrun")["max_db_connections"]
    assert opened + int(annotations["poolhouse/other-connections"]) <= room_of(CLOUD_RUN)


def threads_of(document: Document, deployed: Deploy) -> int:
    """Return the number of client connections that the threads of a pod keep."""
    deployed(container_of(document, "web"))
    web = read(Web)
    return web.web_processes * web.web_threads


@pytest.mark.parametrize(("document", "ini"), [(WEB, "sidecar"), (CLOUD_RUN, "cloudrun")])
def test_pgbouncer_accepts_a_connection_of_every_thread_of_its_pod(
    document: Document, ini: str, deployed: Deploy
) -> None:
    threads, sizes = threads_of(document, deployed), sizes_of(ini)
    consoles_and_probes = 8
    assert threads + consoles_and_probes <= sizes["max_client_conn"]
    assert sizes["max_db_connections"] < threads, "a pool as large as its clients pools nothing"


def test_one_central_pgbouncer_accepts_a_connection_of_every_thread_of_all_pods(deployed: Deploy) -> None:
    pods = most_pods(WEB, int(CENTRAL["metadata"]["annotations"]["poolhouse/web-replicas"]))
    assert pods * threads_of(WEB, deployed) + 8 <= sizes_of("central")["max_client_conn"]


def test_cloud_run_sends_no_more_requests_than_there_are_threads(deployed: Deploy) -> None:
    assert pod_of(CLOUD_RUN)["containerConcurrency"] == threads_of(CLOUD_RUN, deployed)


# Beginning and end.


def test_the_sidecar_starts_before_the_web_and_ends_after_it() -> None:
    (sidecar,) = pod_of(WEB)["initContainers"]
    assert sidecar["restartPolicy"] == "Always", "otherwise it is a step that has to end before the web begins"
    assert "startupProbe" in sidecar, "otherwise the web begins when PgBouncer has been started, and may not listen yet"
    assert parse(INI_TEXTS["sidecar"])["pgbouncer"]["listen_addr"] == "127.0.0.1"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "exec" in sidecar[probe], "the kubelet connects to the pod's address, where it does not listen"


def graceful_s() -> int:
    """Return how long gunicorn waits for running requests."""
    seconds: int = Config().settings["graceful_timeout"].default
    return seconds


def test_running_requests_finish_before_the_pod_is_killed() -> None:
    wait_s = container_of(WEB, "web")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod_of(WEB)["terminationGracePeriodSeconds"] >= wait_s + graceful_s() + 10


def test_a_central_pgbouncer_waits_until_its_clients_have_disconnected(deployed: Deploy) -> None:
    deployed(container_of(WEB, "web"))
    assert pod_of(CENTRAL)["terminationGracePeriodSeconds"] >= read(Database).db_conn_max_age + graceful_s()


def test_probes_use_a_host_in_allowed_hosts() -> None:
    for document in (WEB, CLOUD_RUN):
        web = container_of(document, "web")
        hosts = environment_of(web)["ALLOWED_HOSTS"].split(",")
        for probe in [web[name]["httpGet"] for name in web if name.endswith("Probe")]:
            (header,) = probe["httpHeaders"]
            assert header["name"] == "Host"
            assert header["value"] in hosts
            assert probe["port"] in ("http", int(environment_of(web)["WEB_PORT"]))


def test_migrate_sees_the_spool_of_web_and_worker() -> None:
    claims = {"name": "data", "persistentVolumeClaim": {"claimName": "poolhouse-data"}}
    for document, name in ((find("Job", "poolhouse-migrate"), "migrate"), (WEB, "web"), (WORKER, "worker")):
        assert claims in pod_of(document)["volumes"]
        assert {"name": "data", "mountPath": "/data"} in container_of(document, name)["volumeMounts"]
    services = yaml.safe_load((CHECKOUT / "docker-compose.dev.yml").read_text())["services"]
    for name in ("migrate", "backend", "worker"):
        assert "data:/data" in services[name]["volumes"]


def test_the_volume_has_room_for_more_than_one_token(deployed: Deploy) -> None:
    deployed(container_of(WEB, "web"))
    asked = find("PersistentVolumeClaim", "poolhouse-data")["spec"]["resources"]["requests"]["storage"]
    size_bytes = int(asked.removesuffix("Gi")) * 2**30
    ingest = read(Ingest)
    assert ingest.ingest_token_spool_bytes + ingest.ingest_spool_min_free_bytes < size_bytes
