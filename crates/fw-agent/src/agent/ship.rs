//! Ships output: as much as the window takes, a chunk a task in turn.

use std::collections::VecDeque;

use fw_core::tasks::Effect;
use fw_proto::TaskKey;
use fw_proto::frame::{self, Chunk, FromAgent};
use fw_proto::record::{MAX_CHUNK, Offsets};
use tracing::warn;

use super::Agent;

/// zstd's fastest level: log text still shrinks to about a tenth.
const LEVEL: i32 = 1;

impl Agent {
    /// Sends as much output as the window takes, a chunk a task in turn.
    pub(super) fn ship(&mut self) {
        let Some((link, outbox)) = &mut self.link else { return };
        let mut open: VecDeque<(TaskKey, Option<Offsets>)> = self
            .table
            .with_output()
            .map(|(key, ended)| (key, ended.map(|ended| ended.output)))
            .collect();
        let mut raw = Vec::new();
        while let Some((key, end)) = open.pop_front() {
            if outbox.capacity() < 2 {
                return;
            }
            let Some(from) = link.send_from(key) else { return };
            let reader = self.readers.entry(key).or_insert_with(|| self.spool.reader(key, from));
            if reader.at() != from {
                *reader = self.spool.reader(key, from);
            }
            match reader.next(MAX_CHUNK, &mut raw) {
                Ok(Some((from, to))) => {
                    let Ok(data) = zstd::bulk::compress(&raw, LEVEL) else { return };
                    let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
                    let chunk = FromAgent::Chunk(Chunk { key, from, to, raw_len, data: &data });
                    if outbox.try_send(frame::encode(&chunk)).is_err() {
                        return;
                    }
                    link.sent(key, to, data.len() as u64);
                    open.push_back((key, end));
                }
                Ok(None) => {
                    if end.is_some_and(|end| link.tell_end(key, end))
                        && let Some(Effect::Report(report)) = self.table.shipped(key)
                        && outbox
                            .try_send(frame::encode(&FromAgent::Reports(vec![report])))
                            .is_err()
                    {
                        return self.drop_link();
                    }
                }
                Err(error) => warn!(task.key = %key, "output cannot be read: {error}"),
            }
        }
    }
}
