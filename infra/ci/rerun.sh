#!/usr/bin/env bash
# Rerun a recipe on Kubeflow from CI: compile, upload a version named by commit, run or update the schedule, wait.
# Needs the extra `pipelines` and nothing else of this project. Reads: KF_PIPELINES_ENDPOINT, KFP_TOKEN or
# KFP_TOKEN_FILE, and
#   RECIPE (tiny)  PLACEMENT (h200_node)  PIPELINE (full)  NAMESPACE  EXPERIMENT (qwenops)  START_FROM
#   SERVICE_ACCOUNT  of the steps, which make RayJobs (qwenops-pipeline, as the chart names it; empty: Kubeflow's own)
#   OVERRIDES   one path.to.field=value a line
#   CRON        six fields: updates the recurring run instead of starting one
#   SUMMARY     file that receives a Markdown summary
#   COMMIT      names the version (default: git's)
# Exit status: that of `qwenops submit --wait` (6: the evaluation gate did not pass).
set -euo pipefail
cd "$(dirname "$0")/../.."
if [[ -z "${KF_PIPELINES_ENDPOINT:-}" ]]; then
  echo "KF_PIPELINES_ENDPOINT is not set: nothing to run against (a fork has no access to the cluster)"
  exit 0
fi
recipe=${RECIPE:-tiny} pipeline=${PIPELINE:-full}
yaml=$(mktemp -d)/$recipe.$pipeline.yaml
changes=()
while IFS= read -r line; do
  [[ -z $line ]] || changes+=(--set "$line")
done <<<"${OVERRIDES:-}"
qwenops compile "$recipe" --pipeline "$pipeline" --placement "${PLACEMENT:-h200_node}" -o "$yaml"
common=("$yaml" --experiment "${EXPERIMENT:-qwenops}" --commit "${COMMIT:-$(git rev-parse --short=12 HEAD)}" "${changes[@]}")
[[ $pipeline != full && $pipeline != evaluation ]] || common+=(--fail-on-gate)
[[ -z ${NAMESPACE:-} ]] || common+=(--namespace "$NAMESPACE")
account=${SERVICE_ACCOUNT-qwenops-pipeline}
[[ -z $account ]] || common+=(--service-account "$account")
[[ -z ${START_FROM:-} ]] || common+=(--start-from "$START_FROM")
if [[ -n ${CRON:-} ]]; then
  qwenops schedule "${common[@]}" --cron "$CRON"
else
  [[ -z ${SUMMARY:-} ]] || common+=(--summary "$SUMMARY")
  qwenops submit "${common[@]}" --wait --timeout "${TIMEOUT:-20000}"
fi
