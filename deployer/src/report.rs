//! What a run has found out, and the report on it: the verdict and the JSON document.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::commit::{COMMIT, short};
use crate::outcome::Ending;
use crate::output::{Output, clean};
use crate::place::Place;
use crate::pod;

/// The state of a run.
pub(crate) struct Run {
    /// Prints what happens.
    pub(crate) output: Output,
    /// The commit in question, 40 digits.
    pub(crate) commit: Option<String>,
    /// The image in question.
    pub(crate) image: Option<String>,
    /// The Deployment's name.
    pub(crate) deployment: Option<String>,
    /// The namespace and context of the Deployment.
    pub(crate) place: Option<Place>,
    /// The commit that ran before, 40 digits.
    pub(crate) previous_commit: Option<String>,
    /// Whether anything was sent that changes the cluster.
    pub(crate) changed: bool,
    /// What was seen last.
    pub(crate) sight: Option<Sight>,
    /// The evidence for the cause.
    pub(crate) evidence: Vec<String>,
    /// Commands to copy, each with a word for its purpose.
    pub(crate) commands: Vec<(&'static str, String)>,
    /// The result of the rollback, if one was tried.
    pub(crate) rollback: Option<Rollback>,
}

/// What was seen of a rollout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// The Deployment's pods.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The desired number of pods.
    pub(crate) desired: i32,
    /// The lowest number of ready pods, if they were watched without a break since before the apply.
    pub(crate) fewest: Option<usize>,
    /// How many were ready before the apply.
    pub(crate) at_first: usize,
    /// Seconds from the apply until every desired pod of the new revision was available.
    pub(crate) serving_after: Option<f64>,
    /// Seconds from the apply until the last old pod was gone.
    pub(crate) replaced_after: Option<f64>,
    /// What pods have answered on /version, by their names.
    pub(crate) proved: HashMap<String, String>,
}

impl Sight {
    /// What serves now, in words.
    fn serves(&self) -> String {
        let of = self.desired;
        let parts: Vec<String> = pod::serving(&self.pods)
            .into_iter()
            .map(|(commit, count)| match of {
                0 => format!("{} on {count} {}", short(commit), if count == 1 { "pod" } else { "pods" }),
                of => format!("{} on {count} of {of} pods", short(commit)),
            })
            .collect();
        if parts.is_empty() {
            return "nothing: no pod is ready".to_owned();
        }
        let enough = usize::try_from(of).unwrap_or_default().max(self.at_first);
        let always = self.fewest.is_some_and(|fewest| of > 0 && fewest > 0 && fewest >= enough);
        format!("{}{}", parts.join(", "), if always { "; never fewer during the rollout" } else { "" })
    }
}

/// The result of a rollback to the previous revision.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rollback {
    /// `done`, `failed`, or `none` if no earlier revision exists.
    pub(crate) outcome: &'static str,
    /// The commit that was rolled back to.
    pub(crate) commit: Option<String>,
    /// Why it failed.
    pub(crate) cause: Option<String>,
}

impl Rollback {
    fn sentence(&self) -> String {
        let commit = self.commit.as_deref().map_or("the previous revision", short);
        match (self.outcome, &self.cause) {
            ("done", _) => format!("rolled back to {commit}"),
            (_, Some(cause)) => cause.clone(),
            (outcome, None) => format!("{outcome}: {commit}"),
        }
    }
}

/// The document that `-o json` prints. A value that is unknown or does not apply is null.
/// docs/deployer-report.schema.json describes it.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    outcome: &'static str,
    exit_code: u8,
    reason: Option<String>,
    cause: String,
    commit: Option<String>,
    image: Option<String>,
    namespace: Option<String>,
    deployment: Option<String>,
    previous_commit: Option<String>,
    serving_after_s: Option<f64>,
    replaced_after_s: Option<f64>,
    pods: Vec<PodReport>,
    warnings: Vec<String>,
    evidence: Vec<String>,
    rollback: Option<Rollback>,
}

#[derive(Debug, Serialize)]
struct PodReport {
    name: String,
    node: Option<String>,
    ready: bool,
    commit: Option<String>,
}

impl Run {
    /// A run that knows nothing yet.
    pub(crate) fn start() -> Self {
        Self {
            output: Output::start(),
            commit: None,
            image: None,
            deployment: None,
            place: None,
            previous_commit: None,
            changed: false,
            sight: None,
            evidence: Vec::new(),
            commands: Vec::new(),
            rollback: None,
        }
    }

    /// The verdict: the cause first, what serves now, the evidence, commands to look further.
    pub(crate) fn verdict(&self, ending: &Ending) -> Vec<String> {
        let row = |label: &str, text: &str| format!("  {label:<10}  {text}");
        let mut lines = vec![format!("{}: {}", ending.outcome(), ending.cause)];
        lines.extend(self.sight.as_ref().map(|sight| row("serves now", &sight.serves())));
        if ending.reason.is_some() {
            lines.extend(self.evidence.iter().map(|text| row("evidence", text)));
        }
        lines.extend(self.rollback.as_ref().map(|rollback| row("rollback", &rollback.sentence())));
        lines.extend(self.commands.iter().map(|(what_for, command)| row(what_for, command)));
        lines
    }

    /// Everything for a program.
    pub(crate) fn document(&self, ending: &Ending) -> Document {
        let sight = self.sight.clone().unwrap_or_default();
        let mut pods: Vec<PodReport> = sight
            .pods
            .iter()
            .map(|pod| PodReport {
                name: pod.name_any(),
                node: pod::node(pod).map(str::to_owned),
                ready: pod::is_ready(pod),
                commit: sight.proved.get(&pod.name_any()).or_else(|| pod.annotations().get(COMMIT)).cloned(),
            })
            .collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Document {
            outcome: ending.outcome(),
            exit_code: ending.exit_code(),
            reason: ending.reason.map(|reason| reason.to_string()),
            cause: clean(&ending.cause),
            commit: self.commit.clone(),
            image: self.image.clone(),
            namespace: self.place.as_ref().map(|place| place.namespace.clone()),
            deployment: self.deployment.clone(),
            previous_commit: self.previous_commit.clone(),
            serving_after_s: sight.serving_after,
            replaced_after_s: sight.replaced_after,
            pods,
            warnings: self.output.warnings(),
            evidence: self.evidence.clone(),
            rollback: self.rollback.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::outcome::Reason;

    #[test]
    fn the_document_of_every_outcome_is_as_its_schema_describes_it() {
        let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deployer-report.schema.json");
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
        let reasons = schema["properties"]["reason"]["enum"].as_array().unwrap().clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let pod = json!({"metadata": {"name": "web-1", "annotations": {COMMIT: "3f9c"}}, "spec": {"containers": []}});
        let full = Run {
            place: Some(Place { context: None, namespace: "web".to_owned() }),
            sight: Some(Sight {
                pods: vec![Arc::new(serde_json::from_value(pod).unwrap())],
                serving_after: Some(1.5),
                ..Sight::default()
            }),
            rollback: Some(Rollback { outcome: "none", commit: None, cause: Some("there is none".to_owned()) }),
            evidence: vec!["pod web-1".to_owned()],
            ..Run::start()
        };
        let mut words = vec![Value::Null];
        for run in [Run::start(), full] {
            let endings = Reason::ALL.iter().map(|&reason| Ending::new(reason, "why"));
            for ending in endings.chain([Ending::done("all is well")]) {
                let document = serde_json::to_value(run.document(&ending)).unwrap();
                let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{document}: {errors:?}");
                words.push(document["reason"].clone());
            }
        }
        assert!(reasons.iter().all(|reason| words.contains(reason)), "the schema has a word that nothing says");
    }
}
