//! Who may do what. [`allowed`] is the one place where that is decided, whatever way a request comes.
//!
//! A person has a role, a token has scopes; a token that belongs to a person never may more than they. What is
//! [dangerous](Action) asks a person for a proof that is younger than [`Rules::fresh`], and a token for the scope
//! `dangerous`.

use std::collections::BTreeSet;

use fw_proto::api::{Role, Scope};
use fw_proto::{Span, Timestamp};

use crate::host::Seen;
use crate::select::Selector;

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Who {
    /// Someone who is signed in.
    Person {
        /// Their role.
        role: Role,
        /// When they last proved who they are.
        proved_at: Timestamp,
    },
    /// The holder of a token.
    Token {
        /// What it may do.
        scopes: BTreeSet<Scope>,
        /// The role of the person it belongs to; `None` when it is the server's own.
        owner: Option<Role>,
        /// The hosts that it is limited to.
        selector: Option<Selector>,
    },
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Something of one's own: who am I, sign out.
    Own,
    /// See.
    See,
    /// Run something, and what goes with it: cancel, pause, maintenance.
    Run,
    /// Run something as root; dangerous on many hosts.
    RunAsRoot,
    /// Change the fleet: hosts, jobs, secrets, the server.
    Change,
    /// Change who may do what. Not for tokens that are limited to hosts.
    Grant,
    /// Revoke a host; dangerous.
    RevokeHost,
    /// Remove a host; dangerous.
    RemoveHost,
    /// Make a token that may do dangerous things, or switch one-time codes off; dangerous.
    Weaken,
}

/// What it would be done to.
#[derive(Debug, Clone, Copy)]
pub enum On<'h> {
    /// Nothing that has to do with hosts, or each host is looked at by itself later.
    Nothing,
    /// These hosts.
    Hosts(&'h [Seen<'h>]),
    /// All hosts, also later ones.
    Fleet,
}

/// What an owner sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a proof counts.
    pub fresh: Span,
    /// To run as root on more hosts than this is dangerous.
    pub root_hosts: u32,
}

/// Five minutes are enough to do what one signed in for, and short for whoever finds the browser open.
pub const FRESH: Span = Span::from_secs(5 * 60);

/// A slip on ten hosts is a bad day, on all hosts it is the end of one.
pub const ROOT_HOSTS: u32 = 10;

impl Default for Rules {
    fn default() -> Self {
        Self { fresh: FRESH, root_hosts: ROOT_HOSTS }
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The role is too small.
    #[error("this needs the role {needs}, and yours is {has}")]
    Role {
        /// What it takes.
        needs: Role,
        /// What there is.
        has: Role,
    },
    /// The token has not the scope.
    #[error("this needs a token with the scope {0}")]
    Scope(Scope),
    /// The token is limited to other hosts.
    #[error("this token is limited to some hosts, and {0} is not one of them")]
    Host(String),
    /// The token is limited to some hosts, and this is about all.
    #[error("this token is limited to some hosts, and this is about the whole fleet")]
    Fleet,
    /// A person has to prove who they are.
    #[error("this is dangerous: prove that it is you, with your password or a one-time code")]
    Prove,
    /// A token cannot prove who holds it.
    #[error("this is dangerous: it needs a token with the scope dangerous")]
    Dangerous,
}

impl Action {
    /// The least role for it; `None` when anyone may who is let in.
    #[must_use]
    pub const fn role(self) -> Option<Role> {
        match self {
            Self::Own | Self::Weaken => None,
            Self::See => Some(Role::Viewer),
            Self::Run | Self::RunAsRoot => Some(Role::Operator),
            Self::Change | Self::Grant | Self::RevokeHost | Self::RemoveHost => Some(Role::Admin),
        }
    }

    fn is_dangerous(self, on: On<'_>, rules: Rules) -> bool {
        match self {
            Self::Own | Self::See | Self::Run | Self::Change | Self::Grant => false,
            Self::RevokeHost | Self::RemoveHost | Self::Weaken => true,
            Self::RunAsRoot => match on {
                On::Nothing => false,
                On::Hosts(hosts) => hosts.len() > rules.root_hosts as usize,
                On::Fleet => true,
            },
        }
    }
}

/// The scope that goes with a role.
#[must_use]
pub const fn scope(role: Role) -> Scope {
    match role {
        Role::Viewer => Scope::Read,
        Role::Operator => Scope::Run,
        Role::Admin => Scope::Admin,
    }
}

/// Whether this may be done now.
///
/// # Errors
/// It may not; the refusal says what is missing.
pub fn allowed(
    who: &Who,
    action: Action,
    on: On<'_>,
    rules: Rules,
    now: Timestamp,
) -> Result<(), Refusal> {
    has_right(who, action)?;
    within(who, action, on)?;
    if !action.is_dangerous(on, rules) {
        return Ok(());
    }
    match who {
        // A clock that was set back must not make a proof last.
        Who::Person { proved_at, .. } => {
            let fresh = *proved_at <= now && now.since(*proved_at) < rules.fresh;
            if fresh { Ok(()) } else { Err(Refusal::Prove) }
        }
        Who::Token { scopes, .. } if scopes.contains(&Scope::Dangerous) => Ok(()),
        Who::Token { .. } => Err(Refusal::Dangerous),
    }
}

fn has_right(who: &Who, action: Action) -> Result<(), Refusal> {
    let Some(needs) = action.role() else { return Ok(()) };
    let of_person =
        |has: Role| if has >= needs { Ok(()) } else { Err(Refusal::Role { needs, has }) };
    match who {
        Who::Person { role, .. } => of_person(*role),
        Who::Token { scopes, owner, .. } => {
            // Scopes are ordered like the roles that they go with; the scope `dangerous` alone gives nothing.
            let least = scope(needs);
            let has = scopes.iter().any(|has| *has >= least && *has != Scope::Dangerous);
            if !has {
                return Err(Refusal::Scope(least));
            }
            owner.map_or(Ok(()), of_person)
        }
    }
}

fn within(who: &Who, action: Action, on: On<'_>) -> Result<(), Refusal> {
    let Who::Token { selector: Some(selector), .. } = who else { return Ok(()) };
    if action == Action::Grant {
        return Err(Refusal::Fleet);
    }
    match on {
        On::Nothing => Ok(()),
        On::Fleet => Err(Refusal::Fleet),
        On::Hosts(hosts) => match hosts.iter().find(|host| !selector.matches(**host)) {
            None => Ok(()),
            Some(host) => Err(Refusal::Host(host.name.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::HostName;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn person(role: Role, ago: u64) -> Who {
        Who::Person { role, proved_at: NOW - Span::from_secs(ago) }
    }

    fn token(scopes: &[Scope], selector: Option<&str>) -> Who {
        let selector = selector.map(|text| Selector::parse(text).unwrap());
        Who::Token { scopes: scopes.iter().copied().collect(), owner: None, selector }
    }

    #[track_caller]
    fn check(who: &Who, action: Action, hosts: &[&str], expected: &Result<(), Refusal>) {
        let names: Vec<HostName> = hosts.iter().map(|name| name.parse().unwrap()).collect();
        let (labels, facts) = (BTreeMap::new(), serde_json::Map::new());
        let seen: Vec<_> =
            names.iter().map(|name| Seen { name, labels: &labels, facts: &facts }).collect();
        assert_eq!(allowed(who, action, On::Hosts(&seen), Rules::default(), NOW), *expected);
    }

    #[test]
    fn a_role_includes_the_ones_before() {
        for (role, action, may) in [
            (Role::Viewer, Action::See, true),
            (Role::Viewer, Action::Run, false),
            (Role::Operator, Action::RunAsRoot, true),
            (Role::Operator, Action::Change, false),
            (Role::Operator, Action::RevokeHost, false),
            (Role::Admin, Action::Grant, true),
        ] {
            let answer = allowed(&person(role, 9999), action, On::Nothing, Rules::default(), NOW);
            assert_eq!(answer.is_ok(), may, "{role} {action:?}: {answer:?}");
        }
    }

    #[test]
    fn dangerous_actions_ask_for_a_fresh_proof() {
        check(&person(Role::Admin, 299), Action::RevokeHost, &["a"], &Ok(()));
        check(&person(Role::Admin, 300), Action::RevokeHost, &["a"], &Err(Refusal::Prove));
        let later = Who::Person { role: Role::Admin, proved_at: NOW + Span::from_secs(1) };
        check(&later, Action::RemoveHost, &["a"], &Err(Refusal::Prove));
        let many = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
        check(&person(Role::Operator, 300), Action::RunAsRoot, &many[..10], &Ok(()));
        check(&person(Role::Operator, 300), Action::RunAsRoot, &many, &Err(Refusal::Prove));
        check(&person(Role::Operator, 300), Action::Run, &many, &Ok(()));
    }

    #[test]
    fn tokens_need_the_scope_for_what_is_dangerous() {
        let admin = [Scope::Admin];
        check(&token(&admin, None), Action::RevokeHost, &["a"], &Err(Refusal::Dangerous));
        check(&token(&[Scope::Admin, Scope::Dangerous], None), Action::RevokeHost, &["a"], &Ok(()));
        let only = [Scope::Dangerous];
        check(&token(&only, None), Action::See, &[], &Err(Refusal::Scope(Scope::Read)));
        check(&token(&[Scope::Run], None), Action::See, &["a"], &Ok(()));
    }

    #[test]
    fn a_limited_token_stays_within_its_hosts() {
        let web = token(&[Scope::Run], Some("web*"));
        check(&web, Action::Run, &["web1", "web2"], &Ok(()));
        check(&web, Action::Run, &["web1", "db1"], &Err(Refusal::Host("db1".to_owned())));
        let fleet = |action| allowed(&web, action, On::Fleet, Rules::default(), NOW);
        assert_eq!(fleet(Action::Run), Err(Refusal::Fleet));
        let admin = token(&[Scope::Admin], Some("web*"));
        check(&admin, Action::Grant, &[], &Err(Refusal::Fleet));
    }

    #[test]
    fn a_persons_token_may_no_more_than_they() {
        let theirs =
            Who::Token { scopes: [Scope::Admin].into(), owner: Some(Role::Viewer), selector: None };
        check(&theirs, Action::See, &["a"], &Ok(()));
        let refused = Refusal::Role { needs: Role::Operator, has: Role::Viewer };
        check(&theirs, Action::Run, &["a"], &Err(refused));
    }

    proptest! {
        /// Whoever may not without a scope may not with a limit either, and nobody gains by one.
        #[test]
        fn a_limit_only_takes_away(mask in 0_u8..16, action in 0_usize..9, name in "[a-c]") {
            let actions = [
                Action::Own, Action::See, Action::Run, Action::RunAsRoot, Action::Change,
                Action::Grant, Action::RevokeHost, Action::RemoveHost, Action::Weaken,
            ];
            let scopes: Vec<_> = Scope::ALL.into_iter().enumerate()
                .filter(|(n, _)| mask & (1 << n) != 0).map(|(_, scope)| scope).collect();
            let name: HostName = name.parse().unwrap();
            let (labels, facts) = (BTreeMap::new(), serde_json::Map::new());
            let seen = [Seen { name: &name, labels: &labels, facts: &facts }];
            let ask = |selector| {
                let who = token(&scopes, selector);
                allowed(&who, actions[action], On::Hosts(&seen), Rules::default(), NOW).is_ok()
            };
            prop_assert!(!ask(Some("a")) || ask(None));
        }
    }
}
