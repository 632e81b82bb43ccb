//! Compares the deployer's verdicts with the API server's audit log.

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::bed::{Namespace, Outcome, variable};
use crate::manifest::Manifest;
use crate::road::road;

/// The deployer gives seconds with one decimal.
const ROUNDING: f64 = 0.06;
const REPLICAS: usize = 3;

/// Every successful write in a namespace, in the order of the answers.
pub(crate) fn audited(namespace: &str) -> Vec<Value> {
    let log = fs::read_to_string(format!("{}/audit.log", variable("RUN"))).expect("the audit log can be read");
    let events = log.lines().filter(|line| line.contains(namespace)).filter_map(|line| serde_json::from_str(line).ok());
    let is_taken = |event: &Value| {
        event["objectRef"]["namespace"] == namespace
            && event["stage"] == "ResponseComplete"
            && event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
    };
    events.filter(is_taken).collect()
}

/// A pod's history in the log, in seconds since 1970. Each time is that at which the API server received the request.
#[derive(Default)]
struct Life {
    commit: String,
    created: f64,
    /// Each time at which its kubelet reported whether it is ready.
    ready: Vec<(f64, bool)>,
    /// When its deletion was requested.
    terminating: Option<f64>,
    /// When its containers had ended, or its object was removed.
    gone: Option<f64>,
}

impl Life {
    fn is_ready_at(&self, moment: f64) -> bool {
        let said = self.ready.iter().rev().find(|(since, _)| *since <= moment);
        said.is_some_and(|(_, ready)| *ready) && self.terminating.is_none_or(|since| since > moment)
    }
}

fn lives(events: &[Value]) -> BTreeMap<String, Life> {
    let mut lives = BTreeMap::<String, Life>::new();
    for event in events.iter().filter(|event| event["objectRef"]["resource"] == "pods") {
        let (pod, received) = (&event["responseObject"], seconds(&event["requestReceivedTimestamp"]));
        // The pod that was created has its name from the API server.
        let name = pod["metadata"]["name"].as_str().or_else(|| event["objectRef"]["name"].as_str());
        let life = lives.entry(name.expect("a pod has a name").to_owned()).or_default();
        match (event["verb"].as_str(), event["objectRef"]["subresource"].as_str()) {
            (Some("create"), None) => {
                life.commit =
                    pod["metadata"]["annotations"]["request-info.dev/commit"].as_str().unwrap_or_default().into();
                life.created = received;
            }
            (Some("delete"), None) => {
                life.terminating.get_or_insert(received);
                let grace =
                    [&event["requestObject"]["gracePeriodSeconds"], &pod["metadata"]["deletionGracePeriodSeconds"]];
                if grace.into_iter().any(|grace| grace == 0) {
                    life.gone.get_or_insert(received);
                }
            }
            (Some("patch" | "update"), Some("status")) => {
                let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
                let ready =
                    conditions.filter(|condition| condition["type"] == "Ready").any(|found| found["status"] == "True");
                life.ready.push((received, ready));
                // Its containers have ended; only the object is left.
                if pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed" {
                    life.gone.get_or_insert(received);
                }
            }
            _ => {}
        }
    }
    lives
}

/// A time of the audit log, `2026-11-25T04:22:52.123456Z`, in seconds since 1970.
fn seconds(time: &Value) -> f64 {
    let text = time.as_str().and_then(|text| text.strip_suffix('Z')).unwrap_or_else(|| panic!("{time} is not a time"));
    let numbers = text.split(['-', 'T', ':']).map(|number| number.parse().expect("this is a number"));
    let numbers: Vec<f64> = numbers.collect();
    let [year, month, day, hour, minute, second] = numbers[..] else { panic!("{time} is not a time") };
    // Years that begin in March, so that the day of a leap year is their last.
    let (year, month) = if month > 2.0 { (year, month - 3.0) } else { (year - 1.0, month + 9.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    let days = 365.0 * year + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day - 719_469.0;
    ((days * 24.0 + hour) * 60.0 + minute) * 60.0 + second
}

/// What the deployer claimed of one commit, and when.
struct Claim {
    commit: String,
    began: f64,
    ended: f64,
    outcome: Outcome,
}

impl Claim {
    /// Every contradiction between the claim and the log.
    fn contradictions(&self, events: &[Value], lives: &BTreeMap<String, Life>) -> Vec<String> {
        let mut wrong = Vec::new();
        let report = &self.outcome.report;
        if self.outcome.exit_code != 0 {
            wrong.push(format!("it ended with {}", self.outcome.exit_code));
        }
        let applied = self.applied(events);
        let after = |field: &str| report[field].as_f64().unwrap_or(-1.0);
        let claimed: Vec<_> =
            report["pods"].as_array().into_iter().flatten().filter_map(|pod| pod["name"].as_str()).collect();
        let proved: Vec<_> =
            claimed.iter().filter_map(|name| lives.get(*name)).filter(|life| life.commit == self.commit).collect();
        if proved.len() != REPLICAS || claimed.len() != REPLICAS {
            wrong.push(format!("{} of the {} pods that it names are of the commit", proved.len(), claimed.len()));
        }
        wrong.extend(
            proved
                .iter()
                .filter(|life| !life.is_ready_at(self.ended))
                .map(|life| format!("a pod that it proved is not ready at the end, but {:?}", life.ready)),
        );
        let first_ready =
            |life: &&&Life| life.ready.iter().find(|(_, ready)| *ready).map_or(f64::MAX, |(since, _)| *since);
        let serving = proved.iter().map(|life| first_ready(&life)).fold(0.0, f64::max) - applied;
        if serving > after("serving_after_s") + ROUNDING {
            wrong.push(format!("its pods were ready after {serving:.3} s"));
        }
        let old = lives.iter().filter(|(_, life)| life.commit != self.commit && life.created < self.began);
        let old = old.filter(|(_, life)| life.gone.is_none_or(|gone| gone > self.began));
        for (name, life) in old {
            match life.gone.filter(|gone| *gone <= self.ended) {
                None => wrong.push(format!("old pod {name} was not gone yet")),
                Some(gone) if gone - applied > after("replaced_after_s") + ROUNDING => {
                    wrong.push(format!("old pod {name} was gone after {:.3} s", gone - applied));
                }
                Some(_) => {}
            }
        }
        wrong
    }

    /// When the API server received the first write of the Deployment.
    fn applied(&self, events: &[Value]) -> f64 {
        let writes = events.iter().filter(|event| {
            event["objectRef"]["resource"] == "deployments"
                && event["user"]["username"].as_str().is_some_and(|user| user.ends_with(":deployer"))
                && event["requestURI"].as_str().is_some_and(|uri| !uri.contains("dryRun"))
        });
        let mut times = writes.map(|event| seconds(&event["requestReceivedTimestamp"]));
        times.find(|time| *time >= self.began).expect("the audit log has the apply")
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is after 1970").as_secs_f64()
}

/// The shipped manifest, but old pods take a second to end, and new ones are available at once. `DEPLOYS` is the number of
/// deploys, 5 by default.
pub(crate) fn no_verdict_contradicts_the_audit_log() {
    let deploys: usize = std::env::var("DEPLOYS").map_or(5, |count| count.parse().expect("DEPLOYS is a number"));
    let road = road();
    let namespace = Namespace::create("verdicts");
    let manifest = Manifest::shipped()
        .with("/spec/minReadySeconds", json!(0))
        .with("/spec/template/spec/terminationGracePeriodSeconds", json!(3))
        .pre_stop(1);
    let claims: Vec<_> = road.commits[..2]
        .iter()
        .cycle()
        .take(deploys)
        .map(|commit| {
            let began = now();
            let outcome = namespace.deploy(road, &manifest, commit, &["--ignore-order"]);
            Claim { commit: commit.clone(), began, ended: now(), outcome }
        })
        .collect();
    let events = audited(&namespace.name);
    let lives = lives(&events);
    let contradicted: Vec<_> = claims
        .iter()
        .map(|claim| (claim, claim.contradictions(&events, &lives)))
        .filter(|(_, wrong)| !wrong.is_empty())
        .map(|(claim, wrong)| format!("{}\n{}\n{:#}", wrong.join("\n"), claim.outcome.log, claim.outcome.report))
        .collect();
    assert!(
        contradicted.is_empty(),
        "{} of {deploys} verdicts are not true:\n{}",
        contradicted.len(),
        contradicted.join("\n\n")
    );
    println!("{deploys} verdicts, {} pods, and the audit log contradicts none", lives.len());
}
