//! The tests that need a real cluster. They run inside `e2e/cluster.sh run`.
//!
//! All of them run with the image that `RUNTIME` names. The filter `by runtime]` selects those in which the two images
//! differ, which are enough for the other image; `[alone` selects those that need the whole cluster.

mod attacks;
mod availability;
mod bed;
mod bed_itself;
mod failures;
mod limit;
mod manifest;
mod outages;
mod reported;
mod road;
mod rollouts;
mod rules;
mod runtime;
mod standalone;
mod verdicts;
mod visitors;

use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use crate::limit::within;
use crate::runtime::Runtime;

macro_rules! trials {
    ($kind:literal: $($test:path,)*) => {
        vec![$(Trial::test(stringify!($test), || within(limit(), stringify!($test), $test)).with_kind($kind)),*]
    };
}

/// The limit of each test: `MINUTES_A_TEST`, 10 by default.
fn limit() -> Duration {
    let minutes = std::env::var("MINUTES_A_TEST").map_or(10, |number| number.parse().expect("this is a number"));
    Duration::from_mins(minutes)
}

/// Tests that run several at a time, each in its namespace. They mostly wait.
fn side_by_side() -> Vec<Trial> {
    let mut tests = trials!["":
        rules::the_namespace_refuses_what_is_not_restricted,
        rules::the_shipped_role_allows_a_deploy_and_little_else,
        rules::an_older_commit_is_refused,
        rollouts::a_commit_replaces_another_and_the_old_pods_are_gone,
        rollouts::a_rollout_waits_for_pods_that_are_slow_to_become_ready,
        rollouts::a_rollout_waits_for_old_pods_that_terminate_slowly,
        failures::an_image_that_does_not_exist,
        failures::an_image_that_is_never_pulled,
        failures::a_component_that_never_becomes_ready,
        failures::a_misconfigured_variable,
        failures::a_missing_config_map,
        failures::a_missing_secret,
        failures::a_missing_runtime_class,
        failures::a_handler_that_the_nodes_do_not_have,
        failures::a_container_that_would_run_as_root,
        failures::a_readiness_gate_that_is_never_set,
        failures::a_startup_probe_that_never_succeeds,
        failures::a_liveness_probe_that_never_succeeds,
        failures::a_hook_that_fails_after_the_start,
        failures::pods_that_the_kubelet_rejects,
        failures::pods_that_fit_on_no_node,
        reported::pods_of_another_owner_are_ignored,
        reported::one_digest_under_two_names_is_one_image,
        reported::replicas_that_are_not_stated_stay_as_they_are,
        reported::a_config_map_is_written_before_the_pods_that_read_it,
        reported::a_rollout_waits_after_its_cause_of_failure_was_repaired,
        reported::one_kind_of_probe_may_follow_another_after_a_rollback,
        reported::a_rollback_skips_a_revision_that_was_never_available,
        reported::an_image_set_by_hand_is_not_taken_for_the_commits,
        verdicts::no_verdict_contradicts_the_audit_log,
    ];
    tests.extend(trials!["by runtime":
        rules::the_image_is_small,
        rules::pods_run_without_root_and_cannot_write,
        rollouts::the_first_deploy_is_proved_and_a_second_one_changes_nothing,
        failures::a_component_that_ends_at_start,
        failures::a_component_that_crashes_after_it_was_ready,
    ]);
    if Runtime::of_this_run() == Runtime::Standalone {
        tests.extend(trials!["by runtime":
            standalone::docker_alone_runs_it_and_finds_it_healthy,
            standalone::a_killed_process_loses_only_the_request_that_is_under_way,
        ]);
    }
    tests
}

/// Tests that need the whole cluster, or stop a part of it.
fn alone() -> Vec<Trial> {
    let mut tests = trials!["alone":
        bed_itself::a_cluster_that_is_ended_leaves_nothing_behind,
        availability::a_node_port_passes_on_the_visitors_own_address,
        availability::without_pre_stop_visitors_are_lost,
        availability::with_pre_stop_no_visitors_are_lost_when_the_only_pod_changes_nodes,
        availability::no_visitor_is_lost_from_one_runtime_to_the_other_and_back,
        outages::a_rollout_continues_after_the_api_server_was_away,
        outages::a_rollout_continues_when_the_registry_is_back,
        outages::a_registry_that_stays_away_fails_the_rollout,
        outages::a_lost_node_does_not_stop_a_rollout,
    ];
    tests.extend(trials!["alone, by runtime":
        attacks::a_visitor_cannot_end_a_pod_or_keep_others_from_it,
        availability::no_visitor_is_lost_during_rolling_updates,
    ]);
    if Runtime::of_this_run() == Runtime::Standalone {
        tests.extend(trials!["alone, by runtime":
            standalone::heads_that_arrive_a_byte_per_second_do_not_block_other_visitors,
        ]);
    }
    tests
}

const SIDE_BY_SIDE: usize = 3;

fn main() {
    let arguments = Arguments::from_args();
    let at_a_time = |tests| Arguments { test_threads: Some(tests), ..arguments.clone() };
    let side_by_side = libtest_mimic::run(&at_a_time(SIDE_BY_SIDE), side_by_side());
    let alone = libtest_mimic::run(&at_a_time(1), alone());
    side_by_side.exit_if_failed();
    alone.exit();
}
