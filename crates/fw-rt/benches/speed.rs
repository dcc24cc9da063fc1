//! `cargo bench`: how long the scenarios of this crate take.

#[path = "../../fw-bench/shared/scenario.rs"]
mod scenario;
mod scenarios;
#[path = "../../fw-bench/shared/speed.rs"]
mod speed;

fn main() {
    speed::time(scenarios::all());
}
