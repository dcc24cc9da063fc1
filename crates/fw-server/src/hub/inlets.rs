//! What waits for the hub, and what of it is taken up together.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Lot, Message};

/// Messages taken up at once, and runs that begin at once: one commit carries what they amount to.
const BATCH: usize = 1024;

/// Messages taken up beside runs that begin. When thousands of jobs are due in one second, what hosts say of
/// the first must not hold up the last.
const BESIDE: usize = 256;

/// Where the hub is reached.
pub(super) struct Inlets {
    pub(super) lots: mpsc::Receiver<Lot>,
    pub(super) messages: mpsc::Receiver<Message>,
}

/// What is taken up together. Its buffers are used again.
#[derive(Default)]
pub(super) struct Round {
    pub(super) lots: Vec<Lot>,
    pub(super) messages: Vec<Message>,
}

impl Inlets {
    pub(super) fn is_empty(&self) -> bool {
        self.lots.is_empty() && self.messages.is_empty()
    }

    /// Waits until there is something, but no longer than `pause`, and takes up what there is. False when
    /// nobody is left who could say anything.
    pub(super) async fn take(&mut self, round: &mut Round, pause: Duration) -> bool {
        let first = async {
            tokio::select! {
                biased;
                Some(lot) = self.lots.recv() => round.lots.push(lot),
                Some(message) = self.messages.recv() => round.messages.push(message),
                else => return false,
            }
            true
        };
        let there = tokio::time::timeout(pause, first).await.unwrap_or(true);
        self.take_more(round);
        there
    }

    fn take_more(&mut self, round: &mut Round) {
        let mut runs: usize = round.lots.iter().map(|lot| lot.begins.len()).sum();
        while runs < BATCH
            && let Ok(lot) = self.lots.try_recv()
        {
            runs += lot.begins.len();
            round.lots.push(lot);
        }
        let most = if runs == 0 { BATCH } else { BESIDE };
        while round.messages.len() < most
            && let Ok(message) = self.messages.try_recv()
        {
            round.messages.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use fw_core::run::Actor;
    use fw_proto::{HostId, Incarnation, RunId, Span};
    use tokio::sync::oneshot;
    use uuid::Uuid;

    use super::*;
    use crate::hub::Begin;

    fn inlets() -> (mpsc::Sender<Lot>, mpsc::Sender<Message>, Inlets) {
        let (lots, waiting) = mpsc::channel(10_000);
        let (inbox, messages) = mpsc::channel(10_000);
        (lots, inbox, Inlets { lots: waiting, messages })
    }

    fn lot(runs: usize) -> Lot {
        let new =
            serde_json::from_str(r#"{"hosts": "web1", "command": {"argv": ["true"]}}"#).unwrap();
        let incarnation = Incarnation(Uuid::nil());
        let plan = fw_core::command::compile(new, Vec::new(), incarnation, Span::ZERO).unwrap();
        let begin = |n: usize| {
            let run = RunId(Uuid::from_u128(n as u128));
            Begin { run, plan: plan.clone(), by: Actor::Server, fire: None }
        };
        Lot { begins: (0..runs).map(begin).collect(), reply: oneshot::channel().0 }
    }

    fn report() -> Message {
        Message::Reports(HostId(Uuid::nil()), Vec::new())
    }

    /// How many lots and messages a round takes up; `None` when nobody is left.
    async fn take(inlets: &mut Inlets) -> Option<(usize, usize)> {
        let mut round = Round::default();
        let there = inlets.take(&mut round, Duration::ZERO).await;
        there.then_some((round.lots.len(), round.messages.len()))
    }

    #[tokio::test]
    async fn runs_that_begin_come_first_and_hold_up_nothing_else_for_ever() {
        let (lots, inbox, mut inlets) = inlets();
        for _ in 0..3000 {
            inbox.send(report()).await.unwrap();
        }
        for _ in 0..20 {
            lots.send(lot(100)).await.unwrap();
        }
        assert_eq!(take(&mut inlets).await, Some((11, BESIDE)));
        assert_eq!(take(&mut inlets).await, Some((9, BESIDE)));
        assert_eq!(take(&mut inlets).await, Some((0, BATCH)));
        lots.send(lot(BATCH * 2)).await.unwrap();
        assert_eq!(take(&mut inlets).await, Some((1, BESIDE)));
    }

    #[tokio::test]
    async fn what_was_said_is_taken_up_before_the_end() {
        let (lots, inbox, mut inlets) = inlets();
        assert_eq!(take(&mut inlets).await, Some((0, 0)), "time has passed");
        inbox.send(report()).await.unwrap();
        drop(inbox);
        lots.send(lot(1)).await.unwrap();
        drop(lots);
        assert_eq!(take(&mut inlets).await, Some((1, 1)));
        assert_eq!(take(&mut inlets).await, None);
    }
}
