//! Writes that fail because somebody else wrote first.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use tokio::time::Instant;

use crate::commit::COMMIT;
use crate::outcome::{Ending, Reason};

/// How long somebody else may keep writing to the same objects before the run gives up.
const PATIENCE: Duration = Duration::from_secs(15);

/// One write, and since when somebody else has been writing to the same objects.
pub(crate) struct Contest {
    what: String,
    seen: Option<Vec<Option<ObjectMeta>>>,
    since: Option<Instant>,
}

impl Contest {
    /// For a write to `what`, before its first attempt.
    pub(crate) fn of(what: String) -> Self {
        Self { what, seen: None, since: None }
    }

    /// Prepares the next attempt, on the objects that were just read.
    ///
    /// # Errors
    /// When somebody has kept writing to them for too long.
    pub(crate) fn attempt<'a>(
        &mut self,
        live: impl IntoIterator<Item = Option<&'a DynamicObject>>,
    ) -> Result<(), Ending> {
        let now: Vec<_> = live.into_iter().map(|object| object.map(|object| object.metadata.clone())).collect();
        if self.seen.as_ref().is_some_and(|seen| !is_of_status(seen, &now)) {
            self.since.get_or_insert_with(Instant::now);
        }
        self.seen = Some(now);
        if self.since.is_some_and(|since| since.elapsed() >= PATIENCE) {
            let cause = format!("somebody else keeps writing to {}, for {} s now", self.what, PATIENCE.as_secs());
            return Err(Ending::new(Reason::Contested, cause));
        }
        Ok(())
    }
}

/// Whether only statuses were written in the meantime, as controllers do. For kinds without a generation, this is unknown.
fn is_of_status(seen: &[Option<ObjectMeta>], now: &[Option<ObjectMeta>]) -> bool {
    let intent = |object: &Option<ObjectMeta>| {
        let ObjectMeta { uid, generation, annotations, resource_version, .. } = object.clone()?;
        let version = if generation.is_none() { resource_version } else { None };
        Some((uid, generation, annotations.and_then(|mut annotations| annotations.remove(COMMIT)), version))
    };
    seen != now && seen.iter().map(intent).eq(now.iter().map(intent))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The object after this many writes.
    fn object(metadata: &Value, writes: usize) -> DynamicObject {
        let metadata = metadata.to_string().replace("4711", &writes.to_string());
        serde_json::from_str(&format!(r#"{{"metadata": {metadata}}}"#)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_contested_by_what_changes_the_object_and_not_by_its_status() {
        for (what, metadata, is_contested) in [
            ("a status", json!({"uid": "a", "generation": 1, "resourceVersion": "4711"}), false),
            (
                "nothing, and the API server says conflict",
                json!({"uid": "a", "generation": 1, "resourceVersion": "1"}),
                true,
            ),
            ("a spec", json!({"uid": "a", "generation": 4711, "annotations": {COMMIT: "c"}}), true),
            ("a commit", json!({"uid": "a", "generation": 1, "annotations": {COMMIT: "4711"}}), true),
            (
                "a kind without generations",
                json!({"uid": "a", "resourceVersion": "4711", "annotations": {COMMIT: "c"}}),
                true,
            ),
            ("another object of the name", json!({"uid": "4711", "generation": 1}), true),
        ] {
            let version = |number: usize| object(&metadata, number);
            let mut contest = Contest::of("Deployment web".to_owned());
            for attempt in 0..20 {
                assert!(contest.attempt([Some(&version(attempt))]).is_ok(), "{what}: attempts are not counted");
            }
            tokio::time::advance(PATIENCE).await;
            let ended = contest.attempt([Some(&version(20))]);
            assert_eq!(ended.is_err(), is_contested, "{what}");
        }
    }
}
