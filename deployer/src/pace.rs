//! The shortest time in which the Deployment's settings allow a rolling update.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// From the creation of a pod until it is ready, without problems: the image is pulled, the container starts, and the first
/// probe succeeds.
const START: i32 = 5;

/// If the rolling update must take longer than `limit`: how long, and what to do. None if the time is sufficient.
pub(crate) fn too_slow(deployment: &Deployment, limit: Duration) -> Option<String> {
    let spec = deployment.spec.as_ref()?;
    let pods = spec.replicas.unwrap_or(1);
    let at_once = at_once(spec, pods)?;
    let pod = spec.template.spec.as_ref()?;
    let each = START + first_probe(pod) + spec.min_ready_seconds.unwrap_or_default();
    let rounds = (pods + at_once - 1) / at_once;
    let leaving = leaving(pod);
    let seconds = u64::try_from(i64::from(rounds) * i64::from(each) + leaving).ok()?;
    if seconds <= limit.as_secs() {
        return None;
    }
    let last = if leaving > 0 { format!(", and the last old pod another {leaving} s to leave") } else { String::new() };
    Some(format!(
        "{pods} pods are replaced {at_once} at a time; each takes about {each} s to become available{last}: about {seconds} s in all, but --timeout is {} s; raise it, or raise maxSurge in the template",
        limit.as_secs()
    ))
}

/// How many pods are replaced at the same time. None for all.
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment>
fn at_once(spec: &DeploymentSpec, pods: i32) -> Option<i32> {
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return None;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = count(rolling.and_then(|rolling| rolling.max_surge.as_ref()), |part| (pods * part + 99) / 100)?;
    let missing = count(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), |part| pods * part / 100)?;
    Some((surge + missing).max(1))
}

/// A number, or a percentage of all. The default is 25 %.
fn count(stated: Option<&IntOrString>, of_percent: impl Fn(i32) -> i32) -> Option<i32> {
    match stated {
        None => Some(of_percent(25)),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(text)) => text.strip_suffix('%')?.parse().ok().map(of_percent),
    }
}

fn first_probe(pod: &PodSpec) -> i32 {
    let delay = |container: &Container| container.readiness_probe.as_ref()?.initial_delay_seconds;
    pod.containers.iter().filter_map(delay).max().unwrap_or_default()
}

fn leaving(pod: &PodSpec) -> i64 {
    let sleep = |container: &Container| Some(container.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref()?.seconds);
    pod.containers.iter().filter_map(sleep).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_rollout_that_cannot_end_in_time_is_warned_of_before_it_begins() {
        let one = |surge: Value| json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}});
        for (what, replicas, strategy, says) in [
            ("as shipped", 3, one(json!(1)), None),
            ("as shipped, with the most pods that end in time", 26, one(json!(1)), None),
            (
                "as shipped, with more",
                30,
                one(json!(1)),
                Some(
                    "30 pods are replaced 1 at a time; each takes about 10 s to become available, and the last old pod another 35 s to leave: about 335 s in all, but --timeout is 300 s; raise it, or raise maxSurge in the template",
                ),
            ),
            ("a part in percent is rounded up", 30, one(json!("10%")), None),
            ("no strategy is 25 % twice", 1_000, Value::Null, None),
            ("a quarter of few", 2, Value::Null, None),
            ("all at once", 1_000, json!({"type": "Recreate"}), None),
            ("settings that cannot be read cause no warning", 1_000, one(json!("many")), None),
            ("none desired", 0, one(json!(1)), None),
        ] {
            let sleep = json!({"preStop": {"sleep": {"seconds": 35}}});
            let deployment = serde_json::from_value(json!({"spec": {
                "replicas": replicas, "minReadySeconds": 5, "selector": {}, "strategy": strategy,
                "template": {"spec": {"containers": [{"name": "web", "lifecycle": sleep}]}},
            }}));
            let found = too_slow(&deployment.unwrap(), Duration::from_mins(5));
            assert_eq!(found.as_deref(), says, "{what}");
        }
    }
}
