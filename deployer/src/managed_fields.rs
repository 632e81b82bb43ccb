//! Who owns which field of an object, as server-side apply records it.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::Value;

/// The name under which this program applies.
pub(crate) const MANAGER: &str = "deployer";

/// The manager's name of client-side `kubectl apply`.
const CLIENT_SIDE_APPLY: &str = "kubectl-client-side-apply";

/// A field that another manager has set, and that the template sets to another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// For example `.spec.replicas`.
    pub(crate) field: String,
    /// For example `kubectl-edit`.
    pub(crate) manager: String,
}

/// The fields that other managers own in `before` and no longer own in `after`.
pub(crate) fn taken(before: &[ManagedFieldsEntry], after: &[ManagedFieldsEntry]) -> Vec<Taken> {
    let mut taken = Vec::new();
    for entry in before {
        let manager = entry.manager.as_deref().unwrap_or("somebody");
        if manager == MANAGER {
            continue;
        }
        let of_the_same = |other: &&ManagedFieldsEntry| {
            (&other.manager, &other.operation, &other.subresource)
                == (&entry.manager, &entry.operation, &entry.subresource)
        };
        let left = after.iter().filter(of_the_same).flat_map(|entry| paths(entry.fields_v1.as_ref()));
        let left: HashSet<String> = left.collect();
        let lost = paths(entry.fields_v1.as_ref()).into_iter().filter(|field| !left.contains(field));
        taken.extend(lost.map(|field| Taken { field, manager: manager.to_owned() }));
    }
    taken
}

/// The fields of an entry, each as `.spec.containers[name="a"].image`.
fn paths(fields: Option<&FieldsV1>) -> Vec<String> {
    let mut paths = Vec::new();
    if let Some(FieldsV1(fields)) = fields {
        collect(fields, "", &mut paths);
    }
    paths
}

fn collect(fields: &Value, path: &str, paths: &mut Vec<String>) {
    let mut is_leaf = true;
    for (key, below) in fields.as_object().into_iter().flatten() {
        let step = match key.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("k", keys)) => format!("[{}]", keys.trim_start_matches('{').trim_end_matches('}')),
            Some((_, value)) => format!("[{value}]"),
            None => continue, // a dot stands for the parent itself
        };
        is_leaf = false;
        collect(below, &format!("{path}{step}"), paths);
    }
    if is_leaf && !path.is_empty() {
        paths.push(path.to_owned());
    }
}

/// Migrates the managed fields: what client-side apply, or a creation or rollback by this program, still owns becomes applied by
/// this program. A field that the template no longer states is then removed. None if there is nothing to migrate.
pub(crate) fn migrated(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let is_left = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update")
            && entry.subresource.as_deref().is_none_or(str::is_empty)
            && matches!(entry.manager.as_deref(), Some(CLIENT_SIDE_APPLY | MANAGER))
    };
    let is_ours = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Apply") && entry.manager.as_deref() == Some(MANAGER)
    };
    let (left, mut rest): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(is_left);
    let mut left = left.into_iter();
    let first = left.next()?;
    let mut ours = match rest.iter().position(is_ours) {
        Some(at) => {
            let mut ours = rest.remove(at);
            unite(&mut ours.fields_v1, first.fields_v1);
            ours
        }
        None => ManagedFieldsEntry { manager: Some(MANAGER.to_owned()), operation: Some("Apply".to_owned()), ..first },
    };
    for entry in left {
        unite(&mut ours.fields_v1, entry.fields_v1);
    }
    rest.push(ours);
    Some(rest)
}

fn unite(into: &mut Option<FieldsV1>, more: Option<FieldsV1>) {
    match (into, more) {
        (Some(FieldsV1(into)), Some(FieldsV1(more))) => merge(into, more),
        (into @ None, more) => *into = more,
        (Some(_), None) => {}
    }
}

fn merge(into: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    if let Value::Object(into) = into {
        for (key, value) in more {
            match into.get_mut(&key) {
                Some(held) => merge(held, value),
                None => drop(into.insert(key, value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn managed(entries: &Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(entries.clone()).unwrap()
    }

    fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn what_client_side_apply_and_our_own_updates_own_becomes_ours_and_nothing_else_does() {
        let (a, b, ab) =
            (json!({"f:spec": {"f:a": {}}}), json!({"f:spec": {"f:b": {}}}), json!({"f:spec": {"f:a": {}, "f:b": {}}}));
        for (what, before, after) in [
            ("nothing", json!([]), None),
            ("only ours", json!([entry("deployer", "Apply", &a)]), None),
            ("a person's edit stays", json!([entry("kubectl-edit", "Update", &a)]), None),
            (
                "client-side apply",
                json!([entry("kubectl-client-side-apply", "Update", &a)]),
                Some(json!([entry("deployer", "Apply", &a)])),
            ),
            (
                "beside ours",
                json!([entry("deployer", "Apply", &a), entry("kubectl-client-side-apply", "Update", &b)]),
                Some(json!([entry("deployer", "Apply", &ab)])),
            ),
            (
                "created by us, edited by a person",
                json!([entry("deployer", "Update", &a), entry("kubectl-edit", "Update", &b)]),
                Some(json!([entry("kubectl-edit", "Update", &b), entry("deployer", "Apply", &a)])),
            ),
        ] {
            assert_eq!(migrated(&managed(&before)), after.map(|after| managed(&after)), "{what}");
        }
    }

    #[test]
    fn a_field_that_an_apply_takes_from_somebody_is_named_with_its_owner() {
        let (image, replicas) = (
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}}),
            json!({"f:spec": {"f:replicas": {}}}),
        );
        let mut both = image.clone();
        merge(&mut both, replicas.clone());
        for (what, before, after, taken_fields) in [
            (
                "nothing is lost",
                json!([entry("kubectl-edit", "Update", &both)]),
                json!([entry("kubectl-edit", "Update", &both), entry("deployer", "Apply", &both)]),
                vec![],
            ),
            (
                "one of two",
                json!([entry("kubectl-edit", "Update", &both)]),
                json!([entry("kubectl-edit", "Update", &replicas)]),
                vec![".spec.containers[\"name\":\"a\"].image"],
            ),
            (
                "all that there was",
                json!([entry("kubectl-edit", "Update", &replicas)]),
                json!([]),
                vec![".spec.replicas"],
            ),
            ("our own", json!([entry("deployer", "Update", &both)]), json!([]), vec![]),
        ] {
            let found: Vec<String> =
                taken(&managed(&before), &managed(&after)).into_iter().map(|taken| taken.field).collect();
            assert_eq!(found, taken_fields, "{what}");
        }
    }

    #[test]
    fn the_status_of_a_controller_is_never_migrated() {
        let mut status = entry("deployer", "Update", &json!({}));
        status["subresource"] = "status".into();
        assert_eq!(migrated(&managed(&json!([status]))), None);
    }
}
