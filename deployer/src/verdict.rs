//! What to say of a rollout that was followed to its end.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::outcome::{Ending, Outcome};
use crate::output::Output;
use crate::rollout::Assessment;
use crate::template::short;
use crate::watch::Followed;

/// It is done.
pub(crate) fn done(name: &str, commit: &str, followed: &Followed, output: &Output) -> Ending {
    let (serving, replaced) = output.noted(|report| (report.serving_after_s, report.replaced_after_s));
    let times = format!(
        "serving after {:.1} s, replaced after {:.1} s",
        serving.unwrap_or_default(),
        replaced.unwrap_or_default()
    );
    let commit = short(commit);
    Ending::new(
        Outcome::Done,
        match followed.assessment.wanted {
            0 => format!("{name} {commit} runs on 0 pods: replicas is 0, and nobody is served"),
            1 => format!("{name} {commit} serves on 1 pod ({times})"),
            pods => format!("{name} {commit} serves on {pods} pods ({times})"),
        },
    )
}

/// Somebody applied something else meanwhile.
pub(crate) fn superseded(cluster: &Cluster, name: &str, by: &str, output: &Output) -> Ending {
    output.record(|report| report.commands.push(("look", cluster.deployer("status", name))));
    Ending::new(Outcome::Superseded, format!("{by} was applied meanwhile, and its rollout goes on"))
}

/// Time is up.
pub(crate) fn timed_out(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    followed: &Followed,
    output: &Output,
) -> Ending {
    let assessment = &followed.assessment;
    output.record(|report| {
        report.commands.push(("look", cluster.deployer("status", name)));
        report.commands.push(("look", cluster.kubectl(&format!("describe deployment {name}"))));
    });
    let state = match followed.seen.deployment {
        Some(_) => how_it_goes(assessment),
        None => "the API server did not say how it goes".to_owned(),
    };
    let limit = timeout.as_secs();
    Ending::new(Outcome::Unfinished, format!("not ended within {limit} s: {state}; the rollout goes on by itself"))
}

/// How far it is.
pub(crate) fn how_it_goes(assessment: &Assessment) -> String {
    let Assessment { available, wanted, old, .. } = assessment;
    format!("{} of {wanted} new pods available, {old} old pods to go", available.len())
}
