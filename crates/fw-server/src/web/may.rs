//! What a visitor may do, so that a page offers nothing that the API would refuse them.

use fw_core::access::{Action, On};

use crate::auth::Caller;
use crate::state::App;

/// What a visitor may do.
#[derive(Debug)]
pub(super) struct May {
    /// Run commands and jobs, cancel, pause, switch maintenance on and off.
    pub(super) run: Offer,
    /// Change hosts, jobs and the server.
    pub(super) change: Offer,
    /// Change who may do what, and read the audit.
    pub(super) grant: Offer,
}

/// Whether something is offered.
#[derive(Debug)]
pub(super) struct Offer {
    /// Why it is not.
    refused: Option<String>,
}

impl May {
    /// Asks for each what the API would ask.
    pub(super) fn of(app: &App, caller: &Caller) -> Self {
        let offer = |action| {
            let refused = caller.asked(app, action, On::Fleet).err();
            Offer { refused: refused.map(|refusal| refusal.to_string()) }
        };
        Self { run: offer(Action::Run), change: offer(Action::Change), grant: offer(Action::Grant) }
    }

    /// What they may, by name, for scripts.
    pub(super) fn names(&self) -> String {
        let all = [("run", &self.run), ("change", &self.change), ("grant", &self.grant)];
        let may = all.into_iter().filter(|(_, offer)| offer.is()).map(|(name, _)| name);
        may.collect::<Vec<_>>().join(" ")
    }
}

impl Offer {
    /// Whether it is.
    pub(super) const fn is(&self) -> bool {
        self.refused.is_none()
    }

    /// Why it is not.
    pub(super) fn why(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}
