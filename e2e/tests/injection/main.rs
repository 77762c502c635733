//! The injector on a real API server: the chart installed as the article installs it, then pods of every kind.
//!
//! One cluster for all trials, a namespace for each. With `KUBECONFIG` set they run on that cluster, where the injector's
//! image must have been loaded; trials that look into the injector's process are then left out, by name.

mod answers;
mod definitions;
mod faults;
mod neighbours;
mod rights;
mod workloads;

use std::process::ExitCode;

use e2e::trials::{self, Trial};

/// In this order, one after the other: the faults at the end disturb everybody.
const TRIALS: &[Trial] = &e2e::trials![
    answers::pods_are_injected_or_not_as_they_ask,
    answers::dry_runs_and_server_side_apply_are_injected,
    answers::taken_names_are_warned_about,
    #[processes]
    answers::the_second_call_for_a_pod_changes_nothing,
    answers::large_pods_with_odd_fields_are_injected,
    answers::webhook_and_command_line_inject_alike,
    answers::excluded_namespaces_and_the_injector_itself_are_left_alone,
    answers::quotas_and_limit_ranges_see_the_sidecar,
    answers::restricted_namespaces_run_the_injector_and_refuse_the_articles_sidecar,
    definitions::what_is_refused_is_said_in_the_words_of_the_command_line,
    definitions::every_example_is_injected,
    #[processes]
    neighbours::another_webhook_before_or_after_ours_changes_nothing,
    workloads::pods_of_every_controller_are_injected,
    workloads::httpbin_has_its_sidecar_with_both_helms,
    workloads::helm_test_passes,
    rights::the_injector_may_do_what_the_table_says_and_nothing_else,
    #[processes]
    faults::a_webhook_by_url_is_spoken_to_over_http2,
    #[processes]
    faults::pods_are_created_all_the_time_while_the_chart_is_upgraded,
    faults::without_injectors_pods_start_or_are_refused_as_their_namespace_says,
];

fn main() -> ExitCode {
    trials::run(TRIALS)
}
