//! What every store must do, whatever database it stands on: one list of checks, run for each.
//!
//! A check panics when the store does not conform; its name says what it expects.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check that panics is how a store hears that it does not conform"
)]

mod access;
mod changes;
pub mod crowd;
mod fires;
pub mod fixture;
mod hosts;
mod logs;
mod rest;
mod runs;
mod upkeep;

use std::pin::Pin;

use crate::Store;

/// A check, and what it expects.
#[derive(Clone, Copy)]
pub struct Check {
    /// What the store must do, as a sentence with underscores.
    pub name: &'static str,
    run: fn(Store) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

macro_rules! checks {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// All checks.
        pub const CHECKS: &[Check] = &[$(Check {
            name: stringify!($name),
            run: |store| Box::pin($module::$name(store)),
        }),*];
    };
}

checks! {
    runs::a_run_is_what_its_events_add_up_to,
    runs::an_ended_run_is_kept_as_its_report_and_its_plan,
    runs::a_run_may_begin_and_end_in_one_append,
    runs::a_stale_append_conflicts_and_leaves_nothing_of_its_neighbours,
    runs::an_ended_run_takes_no_events,
    runs::runs_are_paged_newest_first,
    runs::runs_are_filtered_by_job_state_and_host,
    runs::runs_of_jobs_are_followed_in_the_order_in_which_they_began,
    runs::late_words_are_noted_once_and_change_no_verdict,
    changes::a_change_is_what_its_events_add_up_to,
    changes::a_stale_append_conflicts_and_leaves_nothing,
    changes::a_change_that_ended_may_go_on,
    changes::changes_are_paged_newest_first,
    changes::who_began_a_change_is_kept_with_what_they_are,
    changes::a_run_knows_its_change,
    changes::old_changes_are_swept_and_runs_of_those_that_go_on_stay,
    logs::output_is_kept_in_order_and_once,
    logs::a_chunk_that_leaves_a_hole_is_refused_with_where_to_go_on,
    logs::a_chunk_that_is_not_what_it_says_is_refused,
    logs::tasks_do_not_share_output,
    logs::all_output_of_a_run_has_one_order,
    hosts::an_invitation_lets_in_as_many_as_it_says,
    hosts::an_expired_invitation_lets_in_nobody,
    hosts::a_known_key_is_one_host_however_often_it_asks,
    hosts::a_revoked_key_does_not_come_back_by_an_invitation,
    hosts::names_and_keys_are_unique,
    hosts::labels_and_facts_are_kept_apart,
    hosts::a_greeting_says_which_build_and_policy_is_online,
    hosts::hosts_are_seen_and_gone,
    hosts::a_removed_host_is_gone,
    fires::a_fire_has_one_verdict,
    fires::fires_of_a_shadow_keep_their_hosts,
    fires::a_fire_and_its_run_are_decided_together,
    fires::a_pending_fire_is_replaced_by_its_verdict,
    fires::neighbours_without_a_run_are_one_row,
    fires::what_did_not_run_is_found_newest_first,
    fires::fires_by_hand_stand_beside_the_schedule,
    fires::the_ledger_is_paged_newest_first,
    fires::what_failed_waits_until_it_is_tried_again,
    rest::a_pause_outlives_a_reload,
    rest::a_token_is_found_by_its_hash,
    rest::a_secret_is_replaced_and_removed,
    rest::a_notice_is_sent_once,
    rest::a_maintenance_is_kept_with_its_end_and_then_swept,
    rest::a_maintenance_that_recurs_is_kept_with_its_source,
    access::a_code_counts_once,
    access::the_first_link_makes_one_user,
    access::who_is_disabled_is_signed_out,
    access::the_last_admin_stays,
    access::sessions_are_listed_ended_and_pruned,
    access::changes_are_noted_with_what_they_change,
    access::the_audit_is_paged_and_filtered,
    rest::it_is_known_when_a_server_was_alive,
    upkeep::what_is_old_is_swept_with_its_output,
    upkeep::what_is_too_much_is_swept_oldest_first,
    upkeep::output_of_no_run_is_swept,
}

/// Runs all checks, each on a store of its own.
pub async fn conform<F: Future<Output = Store>>(fresh: impl Fn() -> F) {
    for check in CHECKS {
        let store = fresh().await;
        (check.run)(store.clone()).await;
        let wrong = store.integrity().await.expect("a store can be checked");
        assert!(wrong.is_empty(), "after {}: {wrong:?}", check.name);
        store.close().await;
    }
}
