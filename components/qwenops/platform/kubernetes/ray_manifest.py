"""A RayJob manifest from a placement's `RayCluster`: names, labels, pods, deadlines. Pure functions.

The names of containers, ports and start parameters are KubeRay's. The submitter's pod is always written out:
KubeRay's own default takes the head's image without its pull policy, secrets or node.
"""

import hashlib
import re
from dataclasses import dataclass, field

from qwenops.platform.kubernetes.objects import Json
from qwenops.recipe.placement import GcsFaultTolerance, RayCluster, RayGroup
from qwenops.recipe.pods import PART_OF, Pod

NAME_LIMIT = 47
"""Longest name of a RayJob; KubeRay puts suffixes behind it and refuses a longer one."""
RUN, STAGE, FINGERPRINT = "qwenops.io/run", "qwenops.io/stage", "qwenops.io/fingerprint"
TASK = "qwenops.io/task"
ENDED = "qwenops.io/ended"
"""Annotation of a job that its step suspended when its run was ended; nobody adopts it."""
_QUEUE, _QUEUE_PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
_HASH = 12
_LABEL_LIMIT = 63
_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001}


@dataclass(frozen=True)
class Identity:
    """Which work a RayJob does.

    Attributes:
        run: Unique id of the pipeline run.
        node: DAG node.
        fingerprint: Fingerprint of the node's task: code, slice, parents.
        owner: Owner reference; empty for none.
    """

    run: str
    node: str
    fingerprint: str
    owner: dict[str, str] = field(default_factory=dict[str, str])

    def name(self, attempt: int) -> str:
        """A name of at most `NAME_LIMIT` characters: node, hash of run, node and fingerprint, attempt."""
        digest = hashlib.sha256(f"{self.run}/{self.node}/{self.fingerprint}".encode()).hexdigest()[:_HASH]
        tail = f"-{digest}-{attempt}"
        head = re.sub(r"[^a-z0-9]+", "-", self.node.lower()).strip("-")
        head = head if head[:1].isalpha() else f"s-{head}"
        return head[: NAME_LIMIT - len(tail)].rstrip("-") + tail

    def labels(self) -> dict[str, str]:
        """The labels by which a RayJob is found again."""
        return {RUN: label_value(self.run), STAGE: label_value(self.node), FINGERPRINT: self.fingerprint[:_LABEL_LIMIT]}


def label_value(text: str) -> str:
    """`text` as a valid label value: at most 63 of letters, digits, dot, dash, underscore, alphanumeric at the ends."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:_LABEL_LIMIT].strip("-._")


def ray_job(cluster: RayCluster, identity: Identity, attempt: int, entrypoint: str, task: str) -> Json:
    """The RayJob that runs `entrypoint`.

    Args:
        cluster: Pods and limits, completed by `Placement.cluster`.
        identity: What the job is for.
        attempt: Number of the attempt, from 0.
        entrypoint: Command of the driver; no shell quoting, KubeRay splits and joins it again.
        task: The task as readable JSON, kept as an annotation.
    """
    labels = cluster.labels | identity.labels()
    labels |= {_QUEUE: cluster.queue} if cluster.queue else {}
    labels |= {_QUEUE_PRIORITY: cluster.queue_priority} if cluster.queue_priority else {}
    metadata: Json = {"name": identity.name(attempt), "labels": labels, "annotations": {TASK: task}}
    if identity.owner:
        metadata["ownerReferences"] = [identity.owner]
    spec: Json = {
        "entrypoint": entrypoint,
        "submissionMode": cluster.submission_mode,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": cluster.ttl_seconds_after_finished,
        "activeDeadlineSeconds": cluster.active_deadline_seconds,
        "preRunningDeadlineSeconds": cluster.pre_running_deadline_seconds,
        "backoffLimit": cluster.backoff_limit,
        "rayClusterSpec": _ray_cluster(cluster, identity),
    }
    if cluster.submission_mode == "K8sJobMode":
        template = _template(cluster.submitter, "ray-job-submitter", identity)
        template["spec"]["restartPolicy"] = "Never"
        spec |= {"submitterPodTemplate": template, "submitterConfig": {"backoffLimit": cluster.submitter_retries}}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def _ray_cluster(cluster: RayCluster, identity: Identity) -> Json:
    head = _template(cluster.head, "ray-head", identity)
    head["spec"]["containers"][0]["ports"] = [{"name": n, "containerPort": port} for n, port in _PORTS.items()]
    if cluster.submission_mode == "SidecarMode":
        head["spec"]["restartPolicy"] = "Never"
    spec: Json = {
        "rayVersion": cluster.ray_version,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"} | cluster.head.ray_start_params,
            "template": head,
        },
        "workerGroupSpecs": [_workers(name, group, identity) for name, group in sorted(cluster.workers.items())],
    }
    if cluster.autoscaling != "off":
        options: Json = {"version": cluster.autoscaling, "idleTimeoutSeconds": cluster.idle_timeout_seconds}
        if cluster.head.security_context:
            # The autoscaler's container stands beside the head's and copies nothing of it.
            options["securityContext"] = cluster.head.security_context
        spec |= {"enableInTreeAutoscaling": True, "autoscalerOptions": options}
    if cluster.auth == "token":
        spec["authOptions"] = {"mode": "token"} | ({"secretName": cluster.auth_secret} if cluster.auth_secret else {})
    if cluster.gcs_fault_tolerance:
        spec["gcsFaultToleranceOptions"] = _fault_tolerance(cluster.gcs_fault_tolerance)
    return spec


def _workers(name: str, group: RayGroup, identity: Identity) -> Json:
    return {
        "groupName": name,
        "replicas": group.replicas,
        "minReplicas": group.replicas if group.min_replicas is None else group.min_replicas,
        "maxReplicas": max(group.replicas, 1) if group.max_replicas is None else group.max_replicas,
        "rayStartParams": group.ray_start_params,
        "template": _template(group, "ray-worker", identity),
    }


def _fault_tolerance(wanted: GcsFaultTolerance) -> Json:
    if wanted.claim:
        return {"backend": "rocksdb", "storage": {"claimName": wanted.claim}}
    options: Json = {"redisAddress": wanted.redis_address}
    if wanted.redis_password:
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": _secret(wanted.redis_password)}}
    return options


def _template(group: RayGroup, container: str, identity: Identity) -> Json:
    metadata: Json = {"labels": group.labels | PART_OF | identity.labels()}
    if group.annotations:
        metadata["annotations"] = group.annotations
    return {"metadata": metadata, "spec": {"containers": [_container(group, container)]} | _pod(group)}


def _pod(pod: Pod) -> Json:
    volumes: list[Json] = [
        {"name": name, "persistentVolumeClaim": {"claimName": volume.claim}}
        if volume.claim
        else {"name": name, "hostPath": {"path": volume.host_path}}
        for name, volume in sorted(pod.volumes.items())
    ]
    if pod.shm_size:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pod.shm_size}})
    fields: Json = {
        "imagePullSecrets": [{"name": name} for name in pod.pull_secrets],
        "serviceAccountName": pod.service_account,
        "nodeSelector": pod.node_selector,
        "tolerations": [
            {"key": item.key, "effect": item.effect}
            | ({"operator": "Equal", "value": item.value} if item.value else {"operator": "Exists"})
            for item in pod.tolerations
        ],
        "affinity": pod.affinity,
        "priorityClassName": pod.priority_class,
        "runtimeClassName": pod.runtime_class,
        "securityContext": pod.pod_security_context,
        "volumes": volumes,
    }
    return {name: value for name, value in fields.items() if value}


def _container(group: RayGroup, name: str) -> Json:
    mounts: list[Json] = [
        {"name": volume_name, "mountPath": volume.mount_path}
        | ({"subPath": volume.sub_path} if volume.sub_path else {})
        for volume_name, volume in sorted(group.volumes.items())
    ]
    if group.shm_size:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    variables: list[Json] = [{"name": key, "value": value} for key, value in sorted(group.env.items())]
    variables += [
        {"name": key, "valueFrom": {"secretKeyRef": _secret(place)}} for key, place in sorted(group.secret_env.items())
    ]
    fields: Json = {
        "name": name,
        "image": group.image,
        "imagePullPolicy": group.image_pull_policy,
        "resources": _resources(group),
        "env": variables,
        "volumeMounts": mounts,
        "securityContext": group.security_context,
    }
    return {key: value for key, value in fields.items() if value}


def _resources(group: RayGroup) -> Json:
    wanted = group.resources
    limits = {"memory": wanted.memory}
    if group.limit_cpu:
        limits["cpu"] = wanted.cpu
    if wanted.num_accelerators:
        limits[wanted.accelerator] = str(wanted.num_accelerators)
    return {"requests": {"cpu": wanted.cpu, "memory": wanted.memory}, "limits": limits}


def _secret(place: str) -> dict[str, str]:
    name, _, key = place.partition("/")
    return {"name": name, "key": key}
