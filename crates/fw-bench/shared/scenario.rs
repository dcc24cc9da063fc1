//! A scenario: input that is the same at every run, and the work on it that is measured.
//!
//! The scenarios of a crate stand in its `benches/scenarios`. They are used twice: `cargo bench`
//! times them (`speed.rs` beside this file), and `cargo xtask count` counts their instructions
//! (`fw-bench`). Both include the files by their path, so that the counting binary needs nothing
//! that only tests need.

use std::any::Any;
use std::hint::black_box;

/// A named piece of work.
pub(crate) struct Scenario {
    /// Unique among all crates; also a file name.
    pub(crate) name: &'static str,
    /// How much one turn of the work handles.
    pub(crate) size: Size,
    /// The work.
    pub(crate) work: Work,
}

/// How much one turn of the work handles.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size {
    /// So many bytes.
    Bytes(u64),
    /// So many hosts, events, jobs.
    Items(u64),
}

/// What is left of the work's input: dropped, but not as part of the work.
pub(crate) type Rest = Box<dyn Any>;

/// Prepares input and gives back the work on it.
pub(crate) enum Work {
    /// Leaves its input as it was: one turn after another on the same.
    Again(Box<dyn Fn() -> Box<dyn FnMut()>>),
    /// Uses its input up.
    Once(Box<dyn Fn() -> Box<dyn FnOnce() -> Rest>>),
}

impl Scenario {
    /// Work that leaves its input as it was.
    pub(crate) fn again<R, W>(
        name: &'static str,
        size: Size,
        prepare: impl Fn() -> W + 'static,
    ) -> Self
    where
        W: FnMut() -> R + 'static,
    {
        let boxed = move || -> Box<dyn FnMut()> {
            let mut work = prepare();
            Box::new(move || drop(black_box(work())))
        };
        Self { name, size, work: Work::Again(Box::new(boxed)) }
    }

    /// Work that uses its input up; what it returns is dropped unmeasured.
    pub(crate) fn once<R, W>(
        name: &'static str,
        size: Size,
        prepare: impl Fn() -> W + 'static,
    ) -> Self
    where
        R: 'static,
        W: FnOnce() -> R + 'static,
    {
        let boxed = move || -> Box<dyn FnOnce() -> Rest> {
            let work = prepare();
            Box::new(move || Box::new(work()))
        };
        Self { name, size, work: Work::Once(Box::new(boxed)) }
    }
}
