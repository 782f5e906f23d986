# The qwenops chart

What the recipe needs in one namespace of a cluster: accounts and rights, MLflow, storage, queues, network rules, a trigger and
alerts. Kubeflow Pipelines, KubeRay and, where queues are wanted, Kueue are there before it;
[infra/README.md](../../infra/README.md) says how. This file is written by `infra/ci/chart_readme.py`; edit `README.md.tpl` or the
comments of `values.yaml`, never this.

```
helm install qwenops helm/qwenops --namespace research --create-namespace
helm test qwenops --namespace research --timeout 60m --logs
```

The second command runs the prerequisites check inside the cluster, under the account of the pipeline steps, and, with
`tests.smoke.enabled`, submits the smoke pipeline from the ConfigMap `tests.smoke.pipelinesConfigMap` and waits for its end:

```
kubectl --namespace research create configmap qwenops-pipelines --from-file=smoke.yaml
```

## What it makes

| object | for |
|---|---|
| ServiceAccounts `pipeline`, `ray`, `mlflow`, `storage`, `trigger` | one for each kind of pod; only pipeline steps hold a Kubernetes token |
| Roles | `pipeline`: own RayJobs, read their pods, logs and events; `kubeflow-step`: report to the back end; `trigger`: upload, start and schedule runs. Namespaced, no wildcard, one secret by name |
| MLflow server | Deployment, Service; database and bucket by secret name |
| PostgreSQL and an S3 server | for trial; off when you name services of your own |
| PersistentVolumeClaim `artifacts` | artifacts of pipelines that work on a shared volume; kept on uninstall |
| LocalQueues, and on request ClusterQueues and ResourceFlavors | Kueue quota |
| NetworkPolicies | deny all, then what steps, Ray pods, submitters, MLflow and its services need of each other |
| RuntimeClass | on request, for pods that execute generated code |
| PodDisruptionBudgets | a node drain waits for Ray heads |
| CronJob `trigger` | on request, submits a pipeline on a schedule, inside the cluster |
| Grafana dashboard, PodMonitors, PrometheusRule | stalled step, loss that is no number, quota held after the end, cost over budget |

Values files to start from: [kind](ci/kind-values.yaml) (one machine, single-user Kubeflow), [gpu](ci/gpu-values.yaml) (cloud services,
Kueue, alerts), [external](ci/external-values.yaml) (services of your own), [minimal](ci/minimal-values.yaml) (rights and network rules only).

## Services of your own

Make the secrets first; the chart only names them. `mlflow.database.existingSecret` holds an SQLAlchemy URI under `uri`;
`objectStore.existingSecret` holds `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and is left empty where the account of the pod has a
cloud identity (`serviceAccounts.mlflow.annotations`). Then switch the bundled ones off and open their addresses:

```
kubectl --namespace research create secret generic mlflow-database --from-literal=uri='postgresql+psycopg2://USER:PASSWORD@HOST:5432/mlflow'
helm upgrade --install qwenops helm/qwenops --namespace research --values helm/qwenops/ci/external-values.yaml
```

## Network rules

`networkPolicy.scope: namespace` denies everything in the namespace that no rule allows, so give the chart a namespace of its own; it
refuses to cut off Kubeflow Pipelines when both share one. `scope: chart` covers the chart's pods and
those that a compiled pipeline and its launcher label `app.kubernetes.io/part-of: qwenops`; workflows and Ray clusters of others are left alone.
Ray pods run generated code: they reach each other, MLflow and the bundled S3 server, and neither the Kubernetes API nor the internet.
A step reaches the Kubernetes API; until `networkPolicy.apiServer.cidrs` names its address, that means any address on its ports.
Pods that KubeRay makes to submit a job carry no label of KubeRay's; in `scope: chart` the launcher's label
`app.kubernetes.io/part-of: qwenops` on their template brings them under the rules. MLflow itself has no login: who may reach it is decided
here (`networkPolicy.clientNamespaces`) and by the proxy before it.

## Upgrade

```
helm upgrade qwenops helm/qwenops --namespace research --values my-values.yaml
helm test qwenops --namespace research --timeout 60m --logs
```

- Generated passwords and keys are looked up in the cluster and kept. `helm template` and GitOps tools that render without a cluster make new
  ones at every rendering: name existing secrets there.
- A new MLflow may bring a new database schema. `mlflow.migrate` applies it before the server starts; take a backup first (below). With more
  than one replica set `mlflow.migrate: false`, scale to zero, run `mlflow db upgrade` once, then upgrade.
- A running pipeline is not touched: its pods are Kubeflow's and KubeRay's. Rights and network rules change at once.
- Selectors, the claim's size and the volume templates of the bundled services cannot change in place; Kubernetes refuses, and nothing is lost.

A backup of the bundled database:

```
kubectl --namespace research exec qwenops-postgresql-0 -- pg_dump --username mlflow mlflow > mlflow.sql
```

## Rollback

```
helm history qwenops --namespace research
helm rollback qwenops REVISION --namespace research --wait
```

Secrets and the artifacts' claim are kept. MLflow's schema does not go back: an older server refuses a newer schema and says so in its
log; restore the backup that was taken before the upgrade, or roll forward. Helm's own record holds the rendered secrets of the bundled
services in the release's secret, so who may read secrets of the namespace may read those.

## Uninstall

`helm uninstall qwenops --namespace research` leaves the claim of the artifacts, the volumes of the bundled services and their secrets, so that
a new installation of the same name finds its data. To delete them too:

```
kubectl --namespace research delete persistentvolumeclaim,secret --selector app.kubernetes.io/instance=qwenops
```

## Values

A value that is not listed, or has a wrong type, is refused with its path.

{{ values }}

## What has been run

The chart is linted, rendered from every values file, checked against Kubernetes' own schemas of each supported minor and against the cases in
`tests/helm` at every change; the upgrade that keeps secrets is run by the real helm against a server that speaks the Kubernetes API.
Alert expressions have not been evaluated by a Prometheus, and the bundled S3 server's image has not been started, by these tests.

## Why it is like this

- One image for MLflow, trigger and tests: three containers, one thing to scan. The bundled services use their projects' own images.
- Kubeflow and the operators are no dependencies: they are cluster-wide, older than any release of ours, and owned by others.
- Artifacts pass through MLflow's server by default, because then no step holds bucket keys. Weights do not: stages write them to the
  artifact root and register their address.
- The S3 server for trial is SeaweedFS, which Kubeflow Pipelines ships too.
