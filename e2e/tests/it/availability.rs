//! What visitors see of a rolling update, through a balancer that checks the nodes as AWS's does.

use std::collections::BTreeSet;

use serde_json::json;

use crate::bed::{Namespace, variable};
use crate::manifest::Manifest;
use crate::road::{image_for_the_other_runtime, road};
use crate::runtime::Runtime;
use crate::visitors::{self, Tally, Visitors};

pub(crate) fn a_node_port_passes_on_the_visitors_own_address() {
    let road = road();
    let namespace = Namespace::create("address");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    for node in ["node-a", "node-b"] {
        let answer = visitors::get(namespace.node_port(node), "/?format=json").expect("the node has a pod");
        assert_eq!(answer["ip"], variable("EDGE"), "through {node}: {answer}");
    }
}

/// The arithmetic of the manifest with a balancer that asks every 2 s: 2 + 2 x 2, and 2 to spare.
const SHORT_INTERVAL: &str = "2s";
const SHORT_PRE_STOP: u32 = 8;

/// Moves the only pod from one node to the other. The balancer must start to use one node and stop using the other.
fn change_nodes(name: &str, pre_stop: u32) -> Tally {
    let road = road();
    let namespace = Namespace::create(name);
    let on = |node: &str| {
        Manifest::quick()
            .with("/spec/replicas", json!(1))
            .with("/spec/minReadySeconds", json!(10)) // time for the balancer to start using the new node
            .with("/spec/template/spec/nodeSelector", json!({"kubernetes.io/hostname": node}))
            .with("/spec/template/spec/terminationGracePeriodSeconds", json!(pre_stop + 5))
            .pre_stop(pre_stop)
    };
    namespace.deploy(road, &on("node-a"), &road.commits[0], &[]).expect(0);
    let balancer = namespace.balance(SHORT_INTERVAL);
    let visitors = Visitors::many(balancer.address);
    namespace.deploy(road, &on("node-b"), &road.commits[1], &[]).expect(0);
    let tally = visitors.leave();
    assert!(tally.answers.contains_key(&road.commits[1]), "the new pod had no visitor");
    tally
}

pub(crate) fn without_pre_stop_visitors_are_lost() {
    let tally = change_nodes("without-pre-stop", 0);
    assert_ne!(tally.failures.len(), 0);
}

pub(crate) fn with_pre_stop_no_visitors_are_lost_when_the_only_pod_changes_nodes() {
    let tally = change_nodes("with-pre-stop", SHORT_PRE_STOP);
    tally.expect_no_failure();
}

/// With the manifest and the balancer as they are shipped. `ROLLING_UPDATES` says how many, 3 by default.
pub(crate) fn no_visitor_is_lost_during_rolling_updates() {
    let road = road();
    let updates =
        std::env::var("ROLLING_UPDATES").map_or(3, |number| number.parse().expect("ROLLING_UPDATES is a number"));
    let namespace = Namespace::create("visitors");
    namespace.deploy(road, &Manifest::shipped(), &road.commits[0], &[]).expect(0);
    let balancer = namespace.balance("10s");
    for update in 1..=updates {
        let (old, new) = (&road.commits[(update - 1) % road.commits.len()], &road.commits[update % road.commits.len()]);
        let visitors = Visitors::many(balancer.address);
        // A soak has more updates than there are commits, so it deploys older commits again.
        let outcome = namespace.deploy(road, &Manifest::shipped(), new, &["--ignore-order"]).expect(0);
        let tally = visitors.leave();
        eprintln!(
            "update {update}: {} requests in {:.1?}, {} failed, {} kept connections tried again, slowest {:.0?}; serving after {} s, replaced after {} s",
            tally.requests(),
            tally.lasted,
            tally.failures.len(),
            tally.retried,
            tally.slowest,
            outcome.report["serving_after_s"],
            outcome.report["replaced_after_s"],
        );
        tally.expect_no_failure();
        if Runtime::of_this_run() == Runtime::Standalone {
            assert_eq!(tally.retried, 0, "kept connections were cut");
        }
        let commits: BTreeSet<_> = tally.answers.keys().collect();
        assert_eq!(commits, BTreeSet::from([old, new]));
        let seconds = tally.lasted.as_secs();
        assert!(tally.requests() as u64 >= 200 * seconds, "only {} requests in {seconds} s", tally.requests());
    }
}

/// The same Deployment, once with a `RuntimeClass` and once without one.
pub(crate) fn no_visitor_is_lost_from_one_runtime_to_the_other_and_back() {
    let (road, ours) = (road(), Runtime::of_this_run());
    let of = |runtime| {
        Manifest::of(runtime)
            .hurried()
            .with("/spec/template/spec/terminationGracePeriodSeconds", json!(SHORT_PRE_STOP + 10))
            .pre_stop(SHORT_PRE_STOP)
    };
    let namespace = Namespace::create("runtimes");
    namespace.deploy(road, &of(ours), &road.commits[0], &[]).expect(0);
    let balancer = namespace.balance(SHORT_INTERVAL);
    let visitors = Visitors::many(balancer.address);
    let (there, back) = (&road.commits[1], &road.commits[2]);
    namespace.deploy_image(road, &of(ours.other()), there, &image_for_the_other_runtime(there), &[]).expect(0);
    namespace.deploy(road, &of(ours), back, &[]).expect(0);
    let tally = visitors.leave();
    tally.expect_no_failure();
    assert_eq!(tally.answers.keys().collect::<BTreeSet<_>>(), road.commits[..3].iter().collect());
}
