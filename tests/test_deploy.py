"""What ships for clusters: the launcher's file, the RayJob, the image, and what goes with a job from a clone.

No cloud is used: Ray's own schema, defaults, autoscaler and packaging judge the files, as far as its wheel has them.
"""

from __future__ import annotations

import copy
import logging
import re
import shlex
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from actors import code
from pipeline import __version__
from pipeline.cli import _parser, main

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster.yaml"
RAYJOB = ROOT / "deploy" / "rayjob.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
README = ROOT / "deploy" / "README.md"
FILES = (CLUSTER, RAYJOB, DOCKERFILE)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE_LIMIT = 12_000_000  # bytes; 10 million when this was written, of which 8.4 are the embedded model's weights
ENGINE = {"CPU": 1, "GPU": 1}


@pytest.fixture
def cluster() -> dict[str, Any]:
    """cluster.yaml as it stands."""
    return yaml.safe_load(CLUSTER.read_text())


@pytest.fixture
def prepared(cluster) -> dict[str, Any]:
    """cluster.yaml with Ray's defaults for AWS filled in, as the launcher works with it."""
    return prepare_config(copy.deepcopy(cluster))


@pytest.fixture
def types(cluster) -> dict[str, Any]:
    """The node types of cluster.yaml but for the head."""
    return {name: each for name, each in cluster["available_node_types"].items() if name != cluster["head_node_type"]}


@pytest.fixture
def job() -> dict[str, Any]:
    """The RayJob's spec."""
    return next(each for each in yaml.safe_load_all(RAYJOB.read_text()) if each["kind"] == "RayJob")["spec"]


def on_spot(node_type: dict[str, Any]) -> bool:
    """Whether AWS is asked for spot machines."""
    return node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"


def launched(config: dict[str, Any], shape: dict[str, int], count: int, *events: tuple[str, int]) -> dict[str, int]:
    """The nodes that Ray's autoscaler starts for `count` pending actors, after `events` of (node type, its fate)."""
    monitor = CloudResourceMonitor()
    monitor.notify(
        [InstanceUpdateEvent(instance_id="i", instance_type=name, new_instance_status=fate) for name, fate in events]
    )
    read = AutoscalingConfig(config, skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=read.get_node_type_configs(),
        max_num_nodes=read.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(shape)] * count),
        cloud_resource_availabilities=monitor.get_resource_availabilities(),
        recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
    )
    return {each.instance_type: each.count for each in ResourceDemandScheduler().schedule(request).to_launch}


def of_kuberay(job: dict[str, Any]) -> dict[str, Any]:
    """What Ray's autoscaler on Kubernetes reads out of the RayJob's cluster."""
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "night", "namespace": "instructmill"}, "spec": job["rayClusterSpec"]}
    )


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of all pods of the RayJob's cluster."""
    groups = [job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]]
    return [each for group in groups for each in group["template"]["spec"]["containers"]]


def package(folder: Path, target: Path) -> set[str]:
    """The files that Ray sends as a job's working dir, by its own packaging."""
    excludes, quiet = get_runtime_env_default_excludes(), logging.getLogger("quiet")
    create_package(str(folder), target, include_gitignore=True, excludes=excludes, logger=quiet)
    with zipfile.ZipFile(target) as sent:
        return {name for name in sent.namelist() if not name.endswith("/")}


def test_the_launchers_file_passes_rays_own_schema(prepared) -> None:
    """Ray's validation accepts cluster.yaml with the defaults of its provider filled in."""
    validate_config(prepared)


def test_the_head_is_on_demand_and_takes_no_work(cluster) -> None:
    """The head has no CPU for tasks and actors, so that only the driver is there, and is no spot machine."""
    head = cluster["available_node_types"][cluster["head_node_type"]]

    assert head["resources"] == {"CPU": 0}
    assert not on_spot(head)
    assert "min_workers" not in head


def test_spot_gpu_nodes_start_at_none(types) -> None:
    """Some GPU types are spot; each of those starts at 0 and has an upper end."""
    spot = [each for each in types.values() if on_spot(each)]

    assert len(spot) >= 2
    assert all(each["resources"]["GPU"] and each["min_workers"] == 0 < each["max_workers"] for each in spot)


def test_engines_get_spot_first_then_on_demand(prepared) -> None:
    """Ray's autoscaler fills the spot types in their order before it starts an on-demand one."""
    types = prepared["available_node_types"]
    alone = {"cpu": types["cpu"]["min_workers"]}

    assert launched(prepared, ENGINE, 3) == {**alone, "gpu-spot": 3}
    assert launched(prepared, ENGINE, 10) == {**alone, "gpu-spot": 8, "gpu-spot-large": 2}
    assert launched(prepared, ENGINE, 99) == {**alone, "gpu-spot": 8, "gpu-spot-large": 8, "gpu-on-demand": 2}
    assert prepared["max_workers"] == sum(each["max_workers"] for each in types.values())


def test_spot_that_does_not_come_is_replaced_by_on_demand(prepared) -> None:
    """Where neither spot type's machines came up in time, the autoscaler starts the on-demand type."""
    late = [(name, Instance.ALLOCATION_TIMEOUT) for name in ("gpu-spot", "gpu-spot-large")]

    assert launched(prepared, ENGINE, 2, *late)["gpu-on-demand"] == 2


def test_spot_that_is_refused_is_asked_again(prepared) -> None:
    """A launch that AWS refuses lowers nothing in this Ray: what the README says of it is still so."""
    refused = [(name, Instance.ALLOCATION_FAILED) for name in ("gpu-spot", "gpu-spot-large")]

    assert "gpu-on-demand" not in launched(prepared, ENGINE, 2, *refused)


def test_novelty_workers_get_nodes_without_a_gpu(prepared, types) -> None:
    """Actors of one CPU bring up CPU nodes alone."""
    assert set(launched(prepared, {"CPU": 1}, 20)) == {"cpu"}
    for each in types.values():  # and find no room on those that are there for an engine
        gpus = each["resources"].get("GPU", 0)
        assert not gpus or each["resources"]["CPU"] == gpus * ENGINE["CPU"]
    assert types["cpu"]["min_workers"] in (0, 1)
    assert "GPU" not in types["cpu"]["resources"]


def test_nodes_are_labelled_with_their_market(cluster) -> None:
    """Each type says by Ray's label whether it is spot or on-demand, and that is what AWS is asked for."""
    for each in cluster["available_node_types"].values():
        assert each["labels"]["ray.io/market-type"] == ("spot" if on_spot(each) else "on-demand")


def test_machines_come_from_several_zones_and_go_when_idle(cluster) -> None:
    """Several zones of the one region are tried; idle workers end, and are not kept as stopped machines."""
    zones = cluster["provider"]["availability_zone"].split(",")

    assert len(set(zones)) >= 3
    assert all(zone.startswith(cluster["provider"]["region"]) for zone in zones)
    assert 0 < cluster["idle_timeout_minutes"] <= 30
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_the_container_has_the_token_files_and_shared_memory(cluster) -> None:
    """Ray's own command to start a node's container turns the token on, mounts it, and sets ulimit and shm."""
    mounts = cluster["file_mounts"]
    docker = cluster["docker"]
    command = docker_start_cmds(
        "ubuntu", docker["image"], mounts, "c", docker["run_options"], "x", "/home/ray", "docker"
    )
    words = shlex.split(command)

    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any(word.endswith(":/home/ray/.ray/auth_token") for word in words)
    assert "RAY_AUTH_MODE=token" in words
    assert "nofile=65536:65536" in words
    assert any(word.startswith("--shm-size=") for word in words)


def test_nothing_is_installed_when_a_node_starts(prepared) -> None:
    """With Ray's defaults filled in, no command of a node but those that start Ray is left."""
    commands = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")

    assert [prepared[name] for name in commands] == [[], [], [], []]


def test_the_dashboard_is_on_the_head_alone(prepared) -> None:
    """The head's dashboard listens on localhost."""
    (start,) = [each for each in prepared["head_start_ray_commands"] if "ray start" in each]

    assert "--dashboard-host=127.0.0.1" in shlex.split(start)


def test_the_rayjobs_cluster_passes_rays_own_schema(job) -> None:
    """Ray's autoscaler on Kubernetes reads the cluster, and its head has no CPU for tasks and actors."""
    read = of_kuberay(job)

    assert read["available_node_types"]["headgroup"]["resources"]["CPU"] == 0
    assert job["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_rayjob_scales_spot_first(job) -> None:
    """The autoscaler is on, version 2; engines get spot pods from 0 on, then on-demand, novelty workers CPU pods."""
    read = of_kuberay(job)
    spec = job["rayClusterSpec"]
    late = [("gpu-spot", Instance.ALLOCATION_TIMEOUT)]

    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 600
    assert launched(read, ENGINE, 17) == {"cpu": 1, "gpu-spot": 16, "gpu-on-demand": 1}
    assert launched(read, ENGINE, 2, *late) == {"cpu": 1, "gpu-on-demand": 2}
    assert set(launched(read, {"CPU": 1}, 20)) == {"cpu"}
    for each in read["available_node_types"].values():
        gpus = each["resources"].get("GPU", 0)
        assert not gpus or each["resources"]["CPU"] == gpus * ENGINE["CPU"]
    assert [each["minReplicas"] for each in spec["workerGroupSpecs"]] == [0, 0, 1]


def test_spot_pods_go_to_spot_nodes(job) -> None:
    """The spot group, and no other, selects spot nodes; the GPU groups tolerate the taints of such nodes."""
    spec = job["rayClusterSpec"]
    pods = {each["groupName"]: each for each in spec["workerGroupSpecs"]}
    pods["head"] = spec["headGroupSpec"]
    key = "eks.amazonaws.com/capacityType"
    market = {name: each["template"]["spec"]["nodeSelector"][key] for name, each in pods.items()}

    assert market == {"head": "ON_DEMAND", "gpu-spot": "SPOT", "gpu-on-demand": "ON_DEMAND", "cpu": "ON_DEMAND"}
    for name, each in pods.items():
        assert each["labels"]["ray.io/market-type"] == market[name].lower().replace("_", "-")
        if name.startswith("gpu"):
            assert "nvidia.com/gpu" in [one["key"] for one in each["template"]["spec"]["tolerations"]]
        assert each["template"]["spec"]["restartPolicy"] == "Never"


def test_the_rayjob_runs_our_command_on_the_head(job) -> None:
    """The entrypoint parses with our own parser, writes to a bucket, and asks for no resources of its own."""
    python, dash, module, *arguments = shlex.split(job["entrypoint"])
    options = _parser().parse_args(arguments)

    assert (python, dash, module) == ("python", "-m", "pipeline")
    assert options.command.__name__ == "run"
    assert options.out.startswith("s3://")
    assert not [key for key in job if key.startswith("entrypoint") and key != "entrypoint"]


def test_the_rayjob_retries_and_ends(job) -> None:
    """A failed job is begun again some times, its cluster goes when it has ended, and no deadline kills it."""
    assert 1 <= job["backoffLimit"] <= 10
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert "activeDeadlineSeconds" not in job
    assert job["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode")


def test_a_stop_leaves_time_to_close(job) -> None:
    """The job's runtime environment is YAML with time for the driver to close, and no more than its pod is given."""
    seconds = int(yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])

    assert 10 < seconds <= job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_rayjob_asks_for_a_token_and_holds_no_secret(job) -> None:
    """Token authentication is on, and all secrets are names of Kubernetes Secrets: no container has a value."""
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "instructmill-ray-token"}
    assert [each for each in containers(job) if each.get("env")] == []
    sources = [source for each in containers(job) for source in each.get("envFrom", [])]
    assert {source["secretRef"]["name"] for source in sources} == {"instructmill-storage", "instructmill-hub"}
    assert set(yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]) == {"RAY_JOB_STOP_WAIT_TIME_S"}
    assert not [each["kind"] for each in yaml.safe_load_all(RAYJOB.read_text()) if each["kind"] == "Secret"]


def test_strangers_cannot_reach_the_pods() -> None:
    """The Ray pods take connections from their own namespace and the operator's, and have no way in from outside."""
    documents = {each["kind"]: each for each in yaml.safe_load_all(RAYJOB.read_text())}
    policy, head = documents["NetworkPolicy"], documents["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]

    assert policy["metadata"]["namespace"] == documents["RayJob"]["metadata"]["namespace"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert [set(source) for source in policy["spec"]["ingress"][0]["from"]] == [{"podSelector"}, {"namespaceSelector"}]
    assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)


# All of them


def test_one_pinned_image_of_our_versions(cluster, job) -> None:
    """The one image of all nodes has a tag with the version of the package, its pin of Ray, and the base's Python."""
    (image,) = {cluster["docker"]["image"], *(each["image"] for each in containers(job))}
    version, ray, python = re.fullmatch(r"[^:]+:([\d.]+)-ray([\d.]+)-py(\d+)", image).groups()
    (pin,) = re.findall(r"ray\[default\]==([\d.]+)\*", " ".join(PROJECT["optional-dependencies"]["vllm"]))
    docker = DOCKERFILE.read_text()

    assert version == __version__
    assert ray.startswith(pin)
    assert ray == metadata.version("ray")  # which the tests ran with
    assert job["rayClusterSpec"]["rayVersion"] == ray
    assert f"FROM rayproject/ray:{ray}-py{python}-" in docker
    assert f"ray[default]=={ray}" in docker
    assert f"instructmill-{version}-py3-none-any.whl" in docker
    assert f"{python[0]}.{python[1:]}" >= PROJECT["requires-python"].removeprefix(">=")
    assert f"docker push {image}" in docker


@pytest.mark.parametrize("file", [*FILES, README], ids=lambda file: file.name)
def test_nothing_listens_to_the_world_and_nothing_floats(file) -> None:
    """No shipped file opens an address to everybody, or takes whatever version an image has today."""
    text = file.read_text()

    assert "0.0.0.0" not in text
    assert not re.search(r":latest\b|:nightly\b", text)
    assert "RAY_AUTH_MODE=disabled" not in text


@pytest.mark.parametrize("file", [CLUSTER, RAYJOB], ids=lambda file: file.name)
def test_what_is_to_edit_is_marked(file) -> None:
    """Every line with a placeholder says EDIT in its comment."""
    held = [line for line in file.read_text().splitlines() if re.search(r"example\.com|-EDIT\b|/EDIT", line)]

    assert held
    assert [line for line in held if "EDIT" not in line.partition("#")[2]] == []


# The working dir


def test_a_clone_as_working_dir_is_what_a_run_needs(tmp_path) -> None:
    """Of a clone with everything in it that a developer has, the code, prompts, model and configurations go along."""
    kept = (
        "pipeline/cli.py pipeline/configs/demo.toml actors/cluster.py prompts/seeds.jsonl embedded/model/config.json "
        "pyproject.toml night.toml configs/night.toml my/seeds.jsonl"
    ).split()
    left = (
        ".git/HEAD .venv/bin/python .env .ci/run tests/test_cli.py tests/vllm/test_vllm.py bench/results/a.json "
        "bench/driver.py runs/demo/data/train-000000.parquet build/lib/pipeline/cli.py dist/a.whl deploy/rayjob.yaml "
        "requirements/cpu.txt cluster.yaml README.md instructmill.egg-info/PKG-INFO pipeline/__pycache__/cli.pyc"
    ).split()
    clone = tmp_path / "clone"
    for name in (*kept, *left):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(name)
    (clone / ".rayignore").write_text((ROOT / ".rayignore").read_text())

    assert package(clone, tmp_path / "sent.zip") == set(kept)


def test_this_clone_as_working_dir_is_small(tmp_path) -> None:
    """What Ray sends of this clone has all packages of the wheel and stays under the limit that the README states."""
    sent = package(ROOT, tmp_path / "sent.zip")

    assert {"pipeline/__main__.py", "actors/__init__.py", "prompts/seeds.jsonl", "embedded/card.json"} <= sent
    assert not [name for name in sent if name.split("/")[0] in ("tests", "bench", "runs", "deploy", "requirements")]
    assert (tmp_path / "sent.zip").stat().st_size < PACKAGE_LIMIT
    assert f"under {PACKAGE_LIMIT // 1_000_000} MB" in README.read_text()


# deploy/README.md


def test_the_readmes_configurations_pass_check(tmp_path, monkeypatch, capsys) -> None:
    """`check` of each configuration as it is written exits 0, but for the bucket, which is nobody's."""
    blocks = re.findall(r"```toml\n# (\S+)\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name, text in blocks:
        Path(name).write_text(text)
        assert main(["check", name, "--no-cluster", "--out", "run"]) == 0, capsys.readouterr()
        assert 'out = "s3://' in text

    assert [name for name, _ in blocks] == ["trial.toml", "night.toml"]


def test_the_readmes_commands_parse() -> None:
    """Every command of ours in the README is one that our own parser takes."""
    text = README.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    ours = [line for line in lines if line.startswith("instructmill ") or "-- python -m pipeline " in line]
    commands = [shlex.split(re.sub(r"^.*?(instructmill|-m pipeline) ", "", line), comments=True) for line in ours]

    assert {command[0] for command in commands} == {"check", "submit", "status", "report", "verify", "run", "curate"}
    for command in commands:
        _parser().parse_args(command)


def test_code_is_hashed_when_it_has_come_to_rest(monkeypatch) -> None:
    """Where files are being unpacked, none of what is there meanwhile counts, and nothing at all never does."""
    seen = iter([code.NOTHING, code.NOTHING, "half", "whole", "whole", "never"])
    monkeypatch.setattr(code, "_hash", lambda: next(seen))
    monkeypatch.setattr(code, "SETTLED_S", 0.0)

    assert code.code_hash.__wrapped__() == "whole"
