//! Runs one scenario for `cargo xtask count`, under valgrind: `fw-bench NAME`. Without a name it
//! lists the scenarios.
//!
//! A crate of its own for a promise: what is counted is release code and what it needs to run,
//! without threads, time, randomness of its own or anything that only tests need.

#[path = "../../fw-core/benches/scenarios/mod.rs"]
mod of_core;
#[path = "../../fw-proto/benches/scenarios/mod.rs"]
mod of_proto;
#[path = "../../fw-rt/benches/scenarios/mod.rs"]
mod of_rt;
#[path = "../shared/scenario.rs"]
mod scenario;

use std::process::ExitCode;

use scenario::{Scenario, Size, Work};

/// Turns of a scenario that can be done again: some costs come up only once in several turns.
const TURNS: u32 = 4;

fn main() -> ExitCode {
    let mut all = [of_proto::all(), of_core::all(), of_rt::all()].into_iter().flatten();
    let Some(name) = std::env::args().nth(1) else {
        all.for_each(|scenario| list(&scenario));
        return ExitCode::SUCCESS;
    };
    let Some(scenario) = all.find(|scenario| scenario.name == name) else {
        eprintln!("there is no scenario {name:?}");
        return ExitCode::FAILURE;
    };
    match scenario.work {
        Work::Again(prepare) => {
            let mut work = prepare();
            // What is set up at first use is not the work's.
            work();
            measured(&mut work, TURNS);
        }
        Work::Once(prepare) => {
            let (mut work, mut rest) = (Some(prepare()), None);
            measured(&mut || rest = work.take().map(|work| work()), 1);
        }
    }
    ExitCode::SUCCESS
}

/// A scenario's name, and how many items or bytes are handled while it is measured.
fn list(scenario: &Scenario) {
    let (Size::Bytes(size) | Size::Items(size)) = scenario.size;
    let turns = match scenario.work {
        Work::Again(_) => u64::from(TURNS),
        Work::Once(_) => 1,
    };
    println!("{} {}", scenario.name, size * turns);
}

/// Valgrind counts from here on (`--toggle-collect`), until this returns.
#[inline(never)]
fn measured(work: &mut dyn FnMut(), turns: u32) {
    for _ in 0..turns {
        work();
    }
}
