//! Frames that effects amount to, in the order in which each host gets them.

use std::collections::BTreeMap;

use fw_proto::frame::{self, FromServer, MAX_FRAME, Start};
use fw_proto::{HostId, TaskKey};

/// Keys in one frame: some 300 KB, well within a frame's bound.
const KEYS: usize = 8192;

/// Frames for hosts: all starts before all cancels and questions, so that no cancel comes before
/// its start, a cancel before the word to keep a change, and what is settled last.
///
/// As few frames as can be: a host's outbox is bounded, and one that is told of a thousand runs
/// as it links must not be cut off for it, only to be told the same again.
#[derive(Debug, Default)]
pub struct Outgoing {
    starts: BTreeMap<HostId, Vec<Start>>,
    cancels: BTreeMap<HostId, Vec<TaskKey>>,
    queries: BTreeMap<HostId, Vec<TaskKey>>,
    keeps: BTreeMap<HostId, Vec<TaskKey>>,
    settled: BTreeMap<HostId, Vec<TaskKey>>,
}

impl Outgoing {
    /// Adds a start.
    pub fn start(&mut self, host: HostId, start: Start) {
        self.starts.entry(host).or_default().push(start);
    }

    /// Adds the wish for a task's end.
    pub fn cancel(&mut self, host: HostId, key: TaskKey) {
        self.cancels.entry(host).or_default().push(key);
    }

    /// Adds a question.
    pub fn query(&mut self, host: HostId, key: TaskKey) {
        self.queries.entry(host).or_default().push(key);
    }

    /// Adds the word to keep an armed change.
    pub fn keep(&mut self, host: HostId, key: TaskKey) {
        self.keeps.entry(host).or_default().push(key);
    }

    /// Adds that a task's end is recorded.
    pub fn settle(&mut self, host: HostId, key: TaskKey) {
        self.settled.entry(host).or_default().push(key);
    }

    /// The frames.
    pub fn frames(self) -> impl Iterator<Item = (HostId, FromServer)> {
        let starts = self.starts.into_iter().flat_map(|(host, starts)| {
            batches(starts).into_iter().map(move |part| (host, FromServer::Start(part)))
        });
        starts
            .chain(framed(self.cancels, FromServer::Cancel))
            .chain(framed(self.queries, FromServer::Query))
            .chain(framed(self.keeps, FromServer::Keep))
            .chain(framed(self.settled, FromServer::Settled))
    }
}

/// Keys of hosts in frames of a bounded size.
fn framed(
    keys: BTreeMap<HostId, Vec<TaskKey>>,
    frame: fn(Vec<TaskKey>) -> FromServer,
) -> impl Iterator<Item = (HostId, FromServer)> {
    keys.into_iter().flat_map(move |(host, keys)| {
        let parts: Vec<_> = keys.chunks(KEYS).map(|part| (host, frame(part.to_vec()))).collect();
        parts
    })
}

/// Starts for one host in frames of a bounded size.
fn batches(starts: Vec<Start>) -> Vec<Vec<Start>> {
    if starts.len() == 1 {
        return vec![starts];
    }
    let mut batches: Vec<Vec<Start>> = Vec::new();
    let mut size = 0;
    for start in starts {
        let bytes = frame::encode(&start).len();
        if size + bytes > MAX_FRAME / 2 || batches.is_empty() {
            batches.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(batch) = batches.last_mut() {
            batch.push(start);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use fw_proto::{NodeId, RunId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_host_that_links_among_thousands_of_runs_is_told_in_few_frames() {
        let mut outgoing = Outgoing::default();
        let host = HostId(Uuid::from_u128(1));
        for number in 0..10_000 {
            let key = TaskKey { run: RunId(Uuid::from_u128(number)), node: NodeId(0), attempt: 1 };
            outgoing.query(host, key);
            outgoing.cancel(host, key);
        }
        let frames: Vec<_> = outgoing.frames().map(|(_, frame)| frame).collect();
        assert_eq!(frames.len(), 4);
        assert!(frames.iter().all(|frame| frame::encode(frame).len() < MAX_FRAME));
        assert!(matches!(frames.first(), Some(FromServer::Cancel(_))), "cancels follow starts");
    }
}
