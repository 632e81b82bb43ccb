//! Whether the API server will let us do everything that a rollout may need, asked before anything is changed.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use kube::Error;
use kube::api::{ObjectMeta, PostParams};

use crate::cluster::Cluster;
use crate::outcome::{Ending, Outcome};
use crate::template::Documents;

/// A verb on a resource, of one name or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    verb: &'static str,
    group: String,
    /// The plural, with the subresource after a slash.
    resource: String,
    name: Option<String>,
}

impl Need {
    fn new(verb: &'static str, group: &str, resource: &str, name: Option<&str>) -> Self {
        Self { verb, group: group.to_owned(), resource: resource.to_owned(), name: name.map(str::to_owned) }
    }

    fn is_met_by(&self, rule: &ResourceRule) -> bool {
        let has = |list: Option<&[String]>, wanted: &str| {
            list.unwrap_or_default().iter().any(|item| item == wanted || item == "*")
        };
        let names = rule.resource_names.as_deref().unwrap_or_default();
        let resources = rule.resources.as_deref();
        let subresource = self.resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
        has(Some(&rule.verbs), self.verb)
            && has(rule.api_groups.as_deref(), &self.group)
            && (has(resources, &self.resource) || subresource.is_some_and(|any| has(resources, &any)))
            && (names.is_empty() || self.name.as_ref().is_some_and(|name| names.contains(name)))
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// Everything that deploying `documents` may need.
pub(crate) fn to_deploy(documents: &Documents) -> Vec<Need> {
    let mut needs = to_follow(documents.deployment.name());
    for document in documents.all() {
        let resource = document.resource();
        for verb in ["get", "patch"] {
            needs.push(Need::new(verb, &resource.group, &resource.plural, Some(document.name())));
        }
        needs.push(Need::new("create", &resource.group, &resource.plural, None));
    }
    needs.push(Need::new("list", "autoscaling", "horizontalpodautoscalers", None));
    needs
}

/// Everything that going back may need.
pub(crate) fn to_go_back(deployment: &str) -> Vec<Need> {
    let mut needs = to_follow(deployment);
    for verb in ["get", "update"] {
        needs.push(Need::new(verb, "apps", "deployments", Some(deployment)));
    }
    needs
}

/// Watching a rollout, saying why it fails, and proving what it ran.
fn to_follow(deployment: &str) -> Vec<Need> {
    let mut needs = Vec::new();
    for verb in ["list", "watch"] {
        needs.push(Need::new(verb, "apps", "deployments", Some(deployment)));
        needs.push(Need::new(verb, "apps", "replicasets", None));
        needs.push(Need::new(verb, "", "pods", None));
        needs.push(Need::new(verb, "", "events", None));
    }
    needs.push(Need::new("get", "", "pods/log", None));
    needs.push(Need::new("get", "", "pods/proxy", None));
    needs
}

/// Refuses to begin what could not be ended. Every missing verb is named, not only the first.
pub(crate) async fn check(cluster: &Cluster, needs: Vec<Need>) -> Result<(), Ending> {
    let Some(rules) = rules(cluster).await? else { return Ok(()) };
    let mut missing = Vec::new();
    for need in needs {
        // An authorizer outside of the cluster need not list its rules, so that only the question itself is certain.
        let is_known = || missing.contains(&need.to_string());
        if !rules.iter().any(|rule| need.is_met_by(rule)) && !is_known() && !is_allowed(cluster, &need).await? {
            missing.push(need.to_string());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let namespace = cluster.namespace();
    Err(Ending::new(
        Outcome::Rejected,
        format!(
            "forbidden in namespace {namespace}: {}; kubernetes/deployer-rbac.yaml has the Role that allows it",
            missing.join(", ")
        ),
    ))
}

/// None where even this question is not allowed: the requests themselves will tell.
async fn rules(cluster: &Cluster) -> Result<Option<Vec<ResourceRule>>, Ending> {
    let review = SelfSubjectRulesReview {
        metadata: ObjectMeta::default(),
        spec: SelfSubjectRulesReviewSpec { namespace: Some(cluster.namespace().to_owned()) },
        status: None,
    };
    let answer = cluster.api_of_cluster::<SelfSubjectRulesReview>().create(&PostParams::default(), &review).await;
    match answer {
        Ok(review) => Ok(Some(review.status.map(|status| status.resource_rules).unwrap_or_default())),
        Err(Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(cluster.ending("ask what is allowed", &error)),
    }
}

async fn is_allowed(cluster: &Cluster, need: &Need) -> Result<bool, Ending> {
    let (resource, subresource) = need.resource.split_once('/').unwrap_or((&need.resource, ""));
    let attributes = ResourceAttributes {
        namespace: Some(cluster.namespace().to_owned()),
        verb: Some(need.verb.to_owned()),
        group: Some(need.group.clone()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        name: need.name.clone(),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = cluster.api_of_cluster::<SelfSubjectAccessReview>().create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| cluster.ending("ask what is allowed", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> ResourceRule {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        ResourceRule {
            verbs: owned(verbs),
            api_groups: Some(owned(groups)),
            resources: Some(owned(resources)),
            resource_names: Some(owned(names)),
        }
    }

    #[test]
    fn a_rule_allows_what_the_api_server_would_allow_by_it() {
        let patch = Need::new("patch", "apps", "deployments", Some("web"));
        let create = Need::new("create", "apps", "deployments", None);
        let log = Need::new("get", "", "pods/log", None);
        for (what, need, rule, is_met) in [
            ("exactly", &patch, rule(&["patch"], &["apps"], &["deployments"], &[]), true),
            ("by name", &patch, rule(&["patch"], &["apps"], &["deployments"], &["web"]), true),
            ("of everything", &patch, rule(&["*"], &["*"], &["*"], &[]), true),
            ("another name", &patch, rule(&["patch"], &["apps"], &["deployments"], &["other"]), false),
            ("another verb", &patch, rule(&["get"], &["apps"], &["deployments"], &[]), false),
            ("another group", &patch, rule(&["patch"], &[""], &["deployments"], &[]), false),
            ("names do not allow to create", &create, rule(&["create"], &["apps"], &["deployments"], &["web"]), false),
            ("the subresource", &log, rule(&["get"], &[""], &["pods/log"], &[]), true),
            ("that of any resource", &log, rule(&["get"], &[""], &["*/log"], &[]), true),
            ("the resource alone", &log, rule(&["get"], &[""], &["pods"], &[]), false),
        ] {
            assert_eq!(need.is_met_by(&rule), is_met, "{what}");
        }
    }
}
