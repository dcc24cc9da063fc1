//! Rules of a change under hostile histories.

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::Role;
use fw_proto::{HostId, RunId, Span, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::{ID, at, host, node, person, plan, work};
use crate::change::*;
use crate::run::Actor;

fn acts() -> impl Strategy<Value = (Act, Option<UndoWhen>)> {
    let hosts = prop::collection::btree_set(0..5_u128, 1..5);
    let undo = prop_oneof![
        3 => Just(Some(UndoWhen::Begun)),
        1 => Just(Some(UndoWhen::Failed)),
        1 => Just(None)
    ];
    let expires = prop_oneof![Just(None), Just(Some(Span::from_secs(60)))];
    prop_oneof![
        6 => (hosts, 0..2_u32, undo)
            .prop_map(|(hosts, retries, undo)| (Act::Exec(work(&hosts, retries)), undo)),
        1 => Just((Act::Wait(Span::from_secs(30)), None)),
        2 => (1..3_u32, expires).prop_map(|(people, expires)| {
            (Act::Approve(Approve { by: Role::Operator, people, expires }), None)
        }),
        1 => Just((Act::Tick, None)),
        1 => Just((Act::Confirm, None)),
    ]
}

fn plans() -> impl Strategy<Value = Plan> {
    let on_failure =
        prop_oneof![Just(OnFailure::Pause), Just(OnFailure::Undo), Just(OnFailure::Stop)];
    let max_failures = prop_oneof![1 => Just(None), 3 => (1..4_u32).prop_map(Some)];
    (prop::collection::vec(acts(), 1..8), max_failures, on_failure, any::<bool>()).prop_map(
        |(acts, max_failures, on_failure, runbook)| {
            let nodes = acts.into_iter().enumerate();
            let nodes = nodes.map(|(n, (act, undo))| node(n, act, undo)).collect();
            let origin = if runbook { Origin::Runbook } else { Origin::Rollout };
            Plan { origin, ..plan(nodes, max_failures, on_failure) }
        },
    )
}

/// Choices, as the test generator gives them; the first again when they are used up.
struct Dice<'d> {
    bytes: &'d [u8],
    used: usize,
}

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        self.used += 1;
        usize::from(self.bytes.get(self.used - 1).copied().unwrap_or_default()) % sides
    }

    fn is_over(&self) -> bool {
        self.used >= self.bytes.len()
    }
}

/// A change, and beside it what is known of it by other means.
struct World {
    change: Change,
    events: Vec<Event>,
    now: i64,
    runs: u128,
    /// How often each host failed in each node, since a person last let it go on.
    fails: BTreeMap<(u32, HostId), u32>,
    /// Hosts that have to take no further part.
    condemned: BTreeMap<HostId, u32>,
    /// The node and the hosts of the run that goes on.
    open: Option<(u32, Way, RunId, Vec<HostId>)>,
    /// What each node left on each host.
    left: BTreeMap<(u32, HostId), Part>,
    /// What was taken back, in its order.
    undone: Vec<(u32, HostId)>,
    /// How often it came to an end.
    ends: u32,
    /// How often somebody took it back after its end.
    reopened: u32,
}

const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];

impl World {
    fn new(plan: Plan) -> Self {
        let planned = Event { at: at(0), by: person("ada"), kind: Kind::Planned(Box::new(plan)) };
        let change = Change::begin(ID, &planned).expect("planned");
        Self {
            ends: u32::from(change.finished_at.is_some()),
            change,
            events: vec![planned],
            now: 0,
            runs: 0,
            fails: BTreeMap::new(),
            condemned: BTreeMap::new(),
            open: None,
            left: BTreeMap::new(),
            undone: Vec::new(),
            reopened: 0,
        }
    }

    fn apply(&mut self, by: Actor, kind: Kind) {
        self.expect(&kind);
        let was_over = self.change.finished_at.is_some();
        let undo = matches!(kind, Kind::UndoRequested) && was_over;
        let event = Event { at: at(self.now), by, kind };
        self.change.step(&event);
        self.events.push(event);
        let is_over = self.change.finished_at.is_some();
        assert!(!was_over || is_over || undo, "it goes on after its end");
        self.reopened += u32::from(undo);
        self.ends += u32::from(is_over && (undo || !was_over));
        self.check();
    }

    /// What an event must find, and what it makes true.
    fn expect(&mut self, kind: &Kind) {
        match kind {
            Kind::Began { node, way: Way::Do, run, hosts } => {
                self.begins(*node, hosts);
                self.open = Some((*node, Way::Do, *run, hosts.clone()));
            }
            Kind::Began { node, way: Way::Undo, run, hosts } => {
                self.begins_undo(*node, hosts);
                self.open = Some((*node, Way::Undo, *run, hosts.clone()));
            }
            Kind::Ended { node, way: Way::Do, parts, .. } => self.ended(*node, parts),
            Kind::Ended { way: Way::Undo, .. } => self.open = None,
            Kind::Resumed => {
                if let Some(Cause::Failed(node) | Cause::Cancelled(node)) =
                    self.change.pause.as_ref().map(|pause| pause.cause)
                {
                    self.forgive(node);
                }
            }
            Kind::Skipped { node, .. } => self.forgive(*node),
            Kind::Planned(_)
            | Kind::Opened { .. }
            | Kind::Passed { .. }
            | Kind::Approved { .. }
            | Kind::Expired { .. }
            | Kind::NotBegun { .. }
            | Kind::PauseRequested
            | Kind::AbortRequested
            | Kind::UndoRequested => {}
        }
    }

    fn begins(&self, node: u32, hosts: &[HostId]) {
        assert!(self.open.is_none(), "two runs are open");
        assert!(self.change.pause.is_none(), "it begins although it is paused");
        let before = self.change.nodes.iter().take(node as usize);
        let settled = |one: &Progress| matches!(one.stand, Stand::Done | Stand::Skipped);
        assert!(before.clone().all(settled), "node {node} begins before the ones before");
        for host in hosts {
            assert!(!self.condemned.contains_key(host), "{host} has failed and takes part");
            let again = self.left.get(&(node, *host)).copied();
            let again = again.filter(|part| !part.is_failure());
            assert_eq!(again, None, "{host} was done in node {node}, and begins again");
        }
        let unique: BTreeSet<_> = hosts.iter().collect();
        assert_eq!(unique.len(), hosts.len());
    }

    fn begins_undo(&mut self, node: u32, hosts: &[HostId]) {
        assert!(self.open.is_none(), "two runs are open");
        for host in hosts {
            let part = self.left.get(&(node, *host)).copied();
            assert!(part.is_some_and(Part::leaves_something), "{host} of {node} left {part:?}");
            assert!(!self.undone.contains(&(node, *host)), "{host} of {node} is undone twice");
            let later = self.undone.last().is_none_or(|(later, _)| node <= *later);
            assert!(later, "node {node} is undone after an earlier one");
            self.undone.push((node, *host));
        }
    }

    fn ended(&mut self, node: u32, parts: &[(HostId, Part)]) {
        let Some((_, _, _, hosts)) = self.open.take() else { return };
        let said: BTreeMap<_, _> = parts.iter().copied().collect();
        let most = self.change.plan.nodes[node as usize].work().expect("it has run").retries;
        for host in hosts {
            let part = said.get(&host).copied().unwrap_or(Part::Unknown);
            let before = self.left.get(&(node, host)).copied();
            let keeps = !part.leaves_something()
                && !matches!(part, Part::TakenBack)
                && before.is_some_and(Part::leaves_something);
            if !keeps {
                self.left.insert((node, host), part);
                if part == Part::NotBegun {
                    self.left.remove(&(node, host));
                }
            }
            if part.is_failure() {
                let fails = self.fails.entry((node, host)).or_default();
                *fails += 1;
                if *fails > most {
                    self.condemned.insert(host, node);
                }
            }
        }
    }

    /// A person has looked at what failed in a node.
    fn forgive(&mut self, node: u32) {
        let failed =
            |host: &HostId| self.left.get(&(node, *host)).copied().is_some_and(Part::is_failure);
        let forgiven: Vec<_> = self.condemned.keys().copied().filter(failed).collect();
        self.condemned.retain(|host, _| !forgiven.contains(host));
    }

    /// What holds at any time.
    fn check(&self) {
        let change = &self.change;
        let again = Change::fold(ID, &self.events).expect("planned");
        assert_eq!(&again, change, "the fold is another");
        assert_eq!(again.next(at(self.now)), change.next(at(self.now)));
        let failed: BTreeSet<_> = self.condemned.keys().copied().collect();
        assert_eq!(change.failed, failed, "who has failed");
        if let Some(most) = change.plan.max_failures {
            assert!(change.failed.len() <= most as usize, "more have failed than may");
        }
        assert_eq!(change.open_try().is_some(), self.open.is_some());
        assert_eq!(change.finished_at.is_some(), change.course.is_end());
        assert_eq!(change.finished_at.is_some(), change.state().is_final());
        assert!(self.ends <= 1 + self.reopened, "it ended {} times", self.ends);
        for (node, progress) in change.plan.nodes.iter().zip(&change.nodes) {
            if let (Act::Approve(gate), Stand::Done) = (&node.act, progress.stand) {
                check_approvals(gate, &progress.approvals);
            }
        }
        self.check_end();
    }

    fn check_end(&self) {
        match self.change.course {
            Course::Undone | Course::UndoFailed => {
                let undone: BTreeSet<_> = self.undone.iter().copied().collect();
                if self.change.course == Course::Undone {
                    assert_eq!(undone, self.to_take_back(), "what was undone");
                }
                assert!(undone.is_subset(&self.to_take_back()));
                let stuck = self.change.course == Course::UndoFailed;
                assert_eq!(!self.change.stuck.is_empty(), stuck);
            }
            Course::Succeeded => {
                let over = |one: &Progress| matches!(one.stand, Stand::Done | Stand::Skipped);
                assert!(self.change.nodes.iter().all(over));
            }
            Course::Forward | Course::Aborting | Course::Undoing | Course::Failed => {}
        }
    }

    /// Everything that was left and can be taken back.
    fn to_take_back(&self) -> BTreeSet<(u32, HostId)> {
        let meant = |(key, part): (&(u32, HostId), &Part)| {
            let undo = self.change.plan.nodes[key.0 as usize].undo.as_ref()?;
            let failed = undo.when == UndoWhen::Failed && *part == Part::Done;
            (part.leaves_something() && !failed).then_some(*key)
        };
        self.left.iter().filter_map(meant).collect()
    }

    /// Does what is due, or lets time pass. False when only a person can help.
    fn drive(&mut self, dice: &mut Dice<'_>) -> bool {
        match self.change.next(at(self.now)) {
            Next::Begin(begin) => self.begin(begin, dice),
            Next::Watch { begin, run, stop } => self.end(&begin, run, stop, dice),
            Next::Record(kind) => self.apply(Actor::Server, kind),
            Next::Until(until) => self.now = self.secs(until),
            Next::Person(Some(until)) => {
                if dice.roll(3) > 0 {
                    return false;
                }
                self.now = self.secs(until);
            }
            Next::Person(None) | Next::Ended => return false,
        }
        true
    }

    fn secs(&self, until: Timestamp) -> i64 {
        assert!(until > at(self.now), "waits for what is over");
        (until.as_millis() - at(0).as_millis()) / 1000
    }

    fn begin(&mut self, begin: Begin, dice: &mut Dice<'_>) {
        let Begin { node, way, hosts, .. } = begin;
        if dice.roll(16) == 15 {
            let why = "no secret of that name".to_owned();
            // What is not begun on the way back is not taken back.
            return self.apply(Actor::Server, Kind::NotBegun { node, way, why });
        }
        self.runs += 1;
        let run = RunId(Uuid::from_u128(self.runs));
        self.apply(Actor::Server, Kind::Began { node, way, run, hosts });
    }

    /// The run ends somehow. It keeps its own budget, as runs do.
    fn end(&mut self, begin: &Begin, run: RunId, stop: Stop, dice: &mut Dice<'_>) {
        if dice.roll(3) == 2 {
            self.now += 1;
            return;
        }
        let mut failures = begin.max_failures.unwrap_or(u32::MAX);
        let mut parts = Vec::new();
        for host in &begin.hosts {
            let part = self.part(begin, *host, stop, failures, dice);
            failures -= u32::from(part.is_failure());
            // One that is not named counts as unknown, which is a failure.
            if part != Part::Unknown || dice.roll(2) == 0 {
                parts.push((*host, part));
            }
        }
        if dice.roll(2) == 1 {
            parts.reverse();
        }
        if dice.roll(4) == 3 {
            // Of a host that the run does not have.
            parts.push((host(99), Part::Failed));
        }
        let cancelled = dice.roll(8) == 7;
        let Begin { node, way, .. } = *begin;
        self.apply(Actor::Server, Kind::Ended { node, way, run, parts, cancelled });
    }

    fn part(
        &self,
        begin: &Begin,
        host: HostId,
        stop: Stop,
        failures: u32,
        dice: &mut Dice<'_>,
    ) -> Part {
        if failures == 0 || (stop != Stop::Nothing && dice.roll(2) == 0) {
            return Part::NotBegun;
        }
        let bad = [Part::Refused, Part::Failed, Part::Unknown, Part::TakenBack, Part::NotTakenBack];
        match dice.roll(8) {
            0..=4 => Part::Done,
            // Who failed before and is skipped then counts as failed, and no budget knew of that.
            5 if !self.fails.contains_key(&(begin.node, host)) => Part::Skipped,
            5..=6 => bad[dice.roll(bad.len())],
            _ => Part::Failed,
        }
    }

    /// Somebody wants something.
    fn ask(&mut self, dice: &mut Dice<'_>) {
        let id = self.change.plan.nodes[dice.roll(self.change.plan.nodes.len())].id.clone();
        let current = self.change.plan.nodes.get(self.change.at).map(|node| node.id.clone());
        let node = if dice.roll(4) == 0 { id } else { current.unwrap_or(id) };
        let request = match dice.roll(12) {
            0 => Request::Pause,
            1..=3 => Request::Resume,
            4 => Request::Abort,
            5 => Request::Undo,
            6..=8 => Request::Approve,
            9..=10 => Request::Pass { node, note: None },
            _ => Request::Skip { node, note: None },
        };
        let name = PEOPLE[dice.roll(PEOPLE.len())];
        let by = if dice.roll(6) == 5 { Actor::Token("ci".into()) } else { person(name) };
        let undoing =
            matches!(self.change.course, Course::Undoing | Course::Undone | Course::UndoFailed);
        match self.change.ask(&request, &by, Role::Operator) {
            Ok(kind) => {
                assert!(!undoing, "{request:?} while it is taken back, or after");
                self.apply(by, kind);
            }
            Err(refused) => assert!(
                !(undoing && request == Request::Undo) || refused == Refused::Undoing,
                "an undo of an undo: {refused}"
            ),
        }
    }

    /// An event comes again that came before: nothing moves but the count.
    fn repeat(&mut self, dice: &mut Dice<'_>) {
        let event = self.events[dice.roll(self.events.len())].clone();
        let open = self.change.open_try().map(|(_, _, open)| open.run);
        let moves = match &event.kind {
            Kind::Ended { run, .. } => open == Some(*run),
            // While a run goes on nothing else begins; without one it could be due in truth.
            Kind::Began { .. } | Kind::NotBegun { .. } | Kind::Passed { .. } => open.is_none(),
            Kind::Planned(_) => false,
            Kind::Opened { .. }
            | Kind::Approved { .. }
            | Kind::Expired { .. }
            | Kind::Skipped { .. }
            | Kind::PauseRequested
            | Kind::Resumed
            | Kind::AbortRequested
            | Kind::UndoRequested => true,
        };
        if moves {
            return;
        }
        let before = self.change.clone();
        self.change.step(&event);
        self.events.push(event);
        let seq = before.seq + 1;
        assert_eq!(self.change, Change { seq, ..before });
    }
}

fn check_approvals(gate: &Approve, approvals: &[(Actor, Timestamp)]) {
    let people: BTreeSet<_> = approvals.iter().map(|(who, _)| who.to_string()).collect();
    assert_eq!(people.len(), approvals.len(), "somebody counts twice");
    assert!(people.len() >= gate.people as usize, "too few have approved");
    if gate.people > 1 {
        let all = approvals.iter().all(|(who, _)| matches!(who, Actor::User(_)));
        assert!(all && approvals.iter().all(|(who, _)| *who != person("ada")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Waves in their order, the budget, one run at a time, exactly what was done is undone, one
    /// end, and the same after a crash anywhere: see [`World::check`] and what it expects.
    #[test]
    fn whatever_happens_the_rules_hold_and_it_comes_to_an_end(
        plan in plans(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut world = World::new(plan);
        let mut dice = Dice { bytes: &bytes, used: 0 };
        while !dice.is_over() {
            match dice.roll(8) {
                0..=4 => drop(world.drive(&mut dice)),
                5..=6 => world.ask(&mut dice),
                _ => world.repeat(&mut dice),
            }
        }
        // From here on all goes well: it ends, or waits for a person.
        let mut calm = Dice { bytes: &[], used: 0 };
        let moved = (0..200).take_while(|_| world.drive(&mut calm)).count();
        prop_assert!(moved < 200, "it goes on for ever");
        let waits = matches!(world.change.next(at(world.now)), Next::Person(_) | Next::Ended);
        prop_assert!(waits, "{:?}", world.change.next(at(world.now)));
        prop_assert_eq!(world.change.finished_at.is_some(), world.ends == 1 + world.reopened);
    }
}
