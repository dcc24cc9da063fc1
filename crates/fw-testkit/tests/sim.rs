//! A hundred worlds, each from its seed.

use fw_proto::api::TaskState;
use fw_testkit::sim::world::World;

#[test]
fn a_hundred_seeds_keep_the_rules() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let outcome = std::panic::catch_unwind(|| World::run(seed));
        let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed} breaks a rule: see above"));
        seen.extend(outcome.tasks.keys().copied());
    }
    for state in [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled, TaskState::Skipped]
    {
        assert!(seen.contains(&state), "the worlds are rich enough to show {state:?}");
    }
}

#[test]
fn a_seed_replays() {
    assert_eq!(World::run(7), World::run(7));
}
