//! Whole swarms in virtual time: fixed seeds with faults, repeatability, the quality of a small flash crowd, and for every check a
//! planted bug that it must catch.

use peas_core::swarm::{Fault, Input, Notice, Output, Setup, Snapshot, Swarm};
use peas_core::unit::{BlockSpan, PieceSet, Time};
use peas_core::wire::Message;
use peas_tests::sim::naive::Naive;
use peas_tests::sim::workload::{Conduct, Plan, Trunk, mbit};
use peas_tests::sim::{Machine, Outcome, World, faults, origin_death};
use std::collections::VecDeque;

fn run<M: Machine>(plan: Plan) -> Outcome {
    World::<M>::new(plan).run()
}

/// Clients of 100 Mbit/s and pieces of 256 KiB: small enough for a test build.
fn crowd(clients: usize, pieces: u32) -> Plan {
    let mut plan = Plan::equal(clients, pieces, 256 << 10, mbit(100.0), 1);
    plan.ends_s = 600.0;
    plan
}

#[test]
fn two_hundred_fixed_seeds_keep_every_promise() {
    let mut broken = Vec::new();
    for seed in 1..=200 {
        let outcome = run::<Swarm>(faults::draw(seed));
        broken.extend(outcome.violations.first().map(|violation| format!("seed {seed}: {violation:?}")));
    }
    assert!(broken.is_empty(), "replay with `peas-sim replay --seed N`:\n{}", broken.join("\n"));
}

/// Seeds of the long run that once failed. 938, 1038, 1827, 3221: a client on trial was told a lease of 10 s, and after 5 s another was
/// given its piece. 12214: whole clients took each other for needy and had no place for newcomers. 1316: what liars of the region said they
/// had was never fetched from afar.
#[test]
fn seeds_that_failed_once_keep_every_promise() {
    for seed in [938, 1038, 1316, 1827, 3221, 12214] {
        assert_eq!(run::<Swarm>(faults::draw(seed)).violations, [], "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 14, 15] {
        let (first, again) = (run::<Swarm>(faults::draw(seed)), run::<Swarm>(faults::draw(seed)));
        assert_eq!((first.fold, first.inputs, first.events), (again.fold, again.inputs, again.events), "seed {seed}");
        assert_ne!(first.fold, run::<Swarm>(faults::draw(seed + 1000)).fold, "another seed is another run");
    }
}

#[test]
fn a_flash_crowd_is_near_the_bound_and_spares_the_origin() {
    let outcome = run::<Swarm>(Plan::flash_crowd(16, 128, 1));
    assert_eq!(outcome.violations, []);
    assert!(outcome.ratio() >= 1.0, "faster than light: {}", outcome.ratio());
    assert!(outcome.ratio() < 1.25, "last client at {} times the bound", outcome.ratio());
    assert!(outcome.origin_copies < 1.2, "the origin sent {} copies", outcome.origin_copies);
}

/// Waits go by what a piece takes. When they went by the clock of slow links, the last of these was whole at 2.6 times the bound.
#[test]
fn a_crowd_on_fast_links_does_not_wait_by_the_clock_of_slow_ones() {
    let mut plan = Plan::equal(8, 256, 256 << 10, mbit(1000.0), 1);
    plan.one_way_s = 0.001;
    let outcome = run::<Swarm>(plan);
    assert_eq!(outcome.violations, []);
    assert!(outcome.ratio() < 1.3, "last client at {} times the bound", outcome.ratio());
}

#[test]
fn the_ground_is_right_for_another_machine_too() {
    let outcome = run::<Naive>(crowd(8, 64));
    assert_eq!((outcome.short, outcome.violations.len()), (0, 0), "{:?}", outcome.violations);
    assert!(outcome.ratio() >= 1.0 && outcome.ratio() < 3.0, "{}", outcome.ratio());
}

#[test]
fn all_become_whole_when_the_origin_dies_after_one_copy() {
    let mut plan = crowd(12, 96);
    plan.origin_dies_at_copies = Some(1.2);
    let outcome = run::<Swarm>(plan);
    assert_eq!((outcome.short, outcome.violations.len()), (0, 0), "{:?}", outcome.violations);
}

/// The origin dies at each tenth of a distribution (`peas-sim origin-dies` is the long form: each hundredth, of 20 swarms). What its clients
/// hold together reaches all of them; what they do not is told of, and comes when the origin is back.
#[test]
fn the_origin_may_die_at_any_moment() {
    let (mut whole, mut holes) = (0, 0);
    for seed in 1..=3 {
        let clean_s = origin_death::clean_s::<Swarm>(seed).unwrap();
        for percent in (10..=100).step_by(10) {
            let case = origin_death::die::<Swarm>(seed, clean_s, percent).unwrap();
            *if case.hole > 0 { &mut holes } else { &mut whole } += 1;
        }
    }
    assert!(whole >= 5 && holes >= 5, "{whole} swarms without a hole and {holes} with one: not much of a test");
}

#[test]
fn hostile_peers_delay_and_nothing_more() {
    for conduct in [Conduct::Poisoner, Conduct::Liar, Conduct::Staller, Conduct::Hoarder] {
        let outcome = run::<Swarm>(crowd(12, 48).with_conduct(0.34, conduct));
        assert_eq!((outcome.short, outcome.violations.len()), (0, 0), "{conduct:?}: {:?}", outcome.violations);
    }
}

/// A machine, and what passes to and from it through something between.
struct Through<B>(Swarm, VecDeque<Output>, B);

/// What changes on the way: nothing, unless it is said.
trait Between: Default {
    fn setup(setup: Setup) -> Setup {
        setup
    }

    fn hear(&mut self, _input: &mut Input) {}

    /// What comes out instead.
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        into.push_back(output);
    }
}

impl<B: Between> Machine for Through<B> {
    fn new(setup: Setup) -> Self {
        Self(Swarm::new(B::setup(setup)), VecDeque::new(), B::default())
    }

    fn handle(&mut self, now: Time, mut input: Input) {
        self.2.hear(&mut input);
        self.0.handle(now, input);
    }

    fn poll(&mut self) -> Option<Output> {
        while let Some(output) = self.0.poll() {
            self.2.twist(output, &mut self.1);
        }
        self.1.pop_front()
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn snapshot(&self, now: Time) -> Snapshot {
        self.0.snapshot(now)
    }

    fn held(&self) -> &PieceSet {
        self.0.held()
    }
}

/// Nobody says which region it is in: they have to be told by how long answers take.
#[derive(Default)]
struct Unlabelled;
impl Between for Unlabelled {
    fn setup(setup: Setup) -> Setup {
        Setup { region: 0, ..setup }
    }

    fn hear(&mut self, input: &mut Input) {
        if let Input::LinkUp { hello, .. } = input {
            hello.region = 0;
        }
    }
}

/// The control is a machine that knows no regions: it shows that the link is thin, and that copies over it are counted.
#[test]
fn a_thin_link_between_regions_carries_each_piece_about_once() {
    let plan = || {
        let mut plan = crowd(12, 256).two_regions(Trunk { bytes_per_s: mbit(120.0), one_way_s: 0.040 });
        plan.one_way_s = 0.002;
        plan
    };
    for (labels, outcome) in [("given", run::<Swarm>(plan())), ("none", run::<Through<Unlabelled>>(plan()))] {
        assert_eq!((outcome.short, outcome.violations.len()), (0, 0), "{:?}", outcome.violations);
        assert!(outcome.trunk_copies < 1.7, "labels {labels}: {} copies over the link", outcome.trunk_copies);
        assert!(outcome.ratio() < 1.8, "labels {labels}: {} times the bound", outcome.ratio());
    }
    let blind = run::<Naive>(plan());
    assert!(blind.trunk_copies > 3.0 && blind.ratio() > 2.0, "{} copies, {} times the bound", blind.trunk_copies, blind.ratio());
}

/// Each piece has one in the region who brings it in, linked to the others or not; what comes slowly because the link is full is not asked
/// for by all. Before, this link carried 3.3 copies, and the last was whole after 1.74 times the bound. Copies are judged by their mean: of forty
/// seeds they are 1.25 to 2.07, 1.60 on average.
#[test]
fn a_region_of_many_does_not_fill_a_thin_link_with_what_comes_twice() {
    let copies: Vec<f64> = (1..=4)
        .map(|seed| {
            let plan = Plan::flash_crowd(48, 96, seed).two_regions(Trunk { bytes_per_s: mbit(25.0), one_way_s: 0.040 });
            let outcome = run::<Swarm>(plan);
            assert_eq!((outcome.short, outcome.violations.len()), (0, 0), "{:?}", outcome.violations);
            assert!(outcome.ratio() < 1.6, "{} times the bound", outcome.ratio());
            assert!(outcome.trunk_copies < 2.2, "{} copies over the link", outcome.trunk_copies);
            outcome.trunk_copies
        })
        .collect();
    assert!(copies.iter().sum::<f64>() / (copies.len() as f64) < 1.9, "{copies:?} over the link");
}

/// Where those near have little to give and the link is wide, what they hold comes from afar as well. Brought in once only, it would be 1.00
/// copies and 1.55 times the bound.
#[test]
fn a_region_of_narrow_uplinks_uses_a_wide_link() {
    let mut plan = Plan::equal(16, 256, 32 << 10, mbit(40.0), 1).with_clients(|_, client| client.up_bytes_per_s = mbit(4.0));
    plan.one_way_s = 0.002;
    let outcome = run::<Swarm>(plan.two_regions(Trunk { bytes_per_s: mbit(400.0), one_way_s: 0.040 }));
    assert!(outcome.trunk_copies > 1.5, "{} copies over the link", outcome.trunk_copies);
    assert!(outcome.ratio() < 1.45, "{} times the bound", outcome.ratio());
}

/// Few clients far away from an origin and from one another fill their links within some round trips. The control has buffers for no more than
/// two pieces at a time, which is what clients once allowed an origin: it takes eight times as long as its link.
#[test]
fn few_clients_far_away_fill_their_links() {
    let plan = |clients| Plan::equal(clients, 512, 128 << 10, mbit(200.0), 1);
    for clients in [1, 3, 8] {
        let outcome = run::<Swarm>(plan(clients));
        assert!(outcome.ratio() < 1.35, "{clients} clients: {} times the bound", outcome.ratio());
    }
    let mut narrow = plan(1);
    narrow.limits.buffered_bytes_max = 4 * (128 << 10);
    let narrow = run::<Swarm>(narrow);
    assert!(narrow.short == 0 && narrow.ratio() > 3.0, "{} times the bound", narrow.ratio());
}

/// An origin goes on after its hand-out where that ends the distribution much sooner, and only there.
#[test]
fn an_origin_helps_clients_that_are_slower_than_itself() {
    let mut plan = crowd(8, 256).with_clients(|_, client| client.up_bytes_per_s = mbit(20.0));
    plan.origin_up_bytes_per_s = mbit(100.0);
    let slow = run::<Swarm>(plan);
    assert!(slow.origin_copies > 2.0, "it left slow clients alone after {} copies", slow.origin_copies);
    assert!(slow.ratio() < 1.2, "{} times the bound", slow.ratio());
    // A piece so small that the system takes it whole is never seen to be on its way: what went out is all that tells what can.
    let mut plan = Plan::equal(16, 256, 32 << 10, mbit(4.0), 1).with_clients(|_, client| client.down_bytes_per_s = mbit(40.0));
    plan.origin_up_bytes_per_s = mbit(20.0);
    let small = run::<Swarm>(plan);
    assert!(small.origin_copies > 2.0 && small.ratio() < 1.2, "{} copies, {} times the bound", small.origin_copies, small.ratio());
    let equal = run::<Swarm>(crowd(8, 256));
    assert!(equal.origin_copies < 1.05, "it sent {} copies to clients as fast as itself", equal.origin_copies);
}

/// Three times as many in one moment as the origin has places for: who was turned away, and told of nobody, comes back in a second, and
/// then there are others to turn to. Before, it was five.
#[test]
fn who_finds_the_origin_full_waits_for_seconds_only() {
    let mut plan = crowd(120, 64);
    plan.limits.links_max = 40;
    plan.limits.neighbors = 16;
    let outcome = run::<Swarm>(plan);
    assert!(outcome.first_piece_p99_s < 5.0, "the last had to wait for {} s", outcome.first_piece_p99_s);
}

// Controls: the machine with one bug each, made by changing what it says and asks for.

fn caught<B: Between>(plan: Plan, words: &str) {
    let outcome = run::<Through<B>>(plan);
    assert!(outcome.violations.iter().any(|violation| violation.what.contains(words)), "not caught: {words}; {:?}", outcome.violations);
}

/// Announces a piece when it asks for it.
#[derive(Default)]
struct AnnouncesEarly;
impl Between for AnnouncesEarly {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        if let Output::Fetch { from, span, .. } = &output {
            let message = Message::Have { runs: vec![(span.piece().raw(), 1)], need: 0, queue_ms: 0 };
            into.push_back(Output::Send { peer: *from, message });
        }
        into.push_back(output);
    }
}

/// Never ends a link for lies.
#[derive(Default)]
struct Forgives;
impl Between for Forgives {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        if !matches!(output, Output::Hangup { why: Fault::Corrupt, .. }) {
            into.push_back(output);
        }
    }
}

/// Assigns every piece twice.
#[derive(Default)]
struct AssignsTwice;
impl Between for AssignsTwice {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        if let Output::Send { peer, message: Message::Assign { piece, lease_ms } } = &output {
            into.push_back(Output::Send { peer: *peer, message: Message::Assign { piece: *piece, lease_ms: *lease_ms } });
        }
        into.push_back(output);
    }
}

/// Serves another piece than it was asked for, whether it holds it or not: the first that it ever fetched.
#[derive(Default)]
struct ServesUnheld(Option<BlockSpan>);
impl Between for ServesUnheld {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        match output {
            Output::Fetch { span, req, from } => {
                self.0 = Some(span);
                into.push_back(Output::Fetch { req, from, span });
            }
            Output::Serve { req, to, span } => into.push_back(Output::Serve { req, to, span: self.0.unwrap_or(span) }),
            other => into.push_back(other),
        }
    }
}

/// Loses every hundredth request before it leaves.
#[derive(Default)]
struct Forgets(u32);
impl Between for Forgets {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        if matches!(output, Output::Send { message: Message::Held { .. }, .. }) {
            self.0 += 1;
            if self.0.is_multiple_of(2) {
                return;
            }
        }
        into.push_back(output);
    }
}

/// Says nothing of pieces that nobody holds.
#[derive(Default)]
struct HidesHoles;
impl Between for HidesHoles {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        if !matches!(output, Output::Notice(Notice::Unavailable { .. })) {
            into.push_back(output);
        }
    }
}

/// Does not look for an origin that it has lost.
#[derive(Default)]
struct GivesUp(bool);
impl Between for GivesUp {
    fn twist(&mut self, output: Output, into: &mut VecDeque<Output>) {
        self.0 |= matches!(output, Output::Notice(Notice::OriginLost));
        if !(self.0 && matches!(output, Output::Dial { .. })) {
            into.push_back(output);
        }
    }
}

#[test]
fn controls_of_dying_origins_are_caught() {
    let clean_s = origin_death::clean_s::<Swarm>(1).unwrap();
    let hidden = origin_death::die::<Through<HidesHoles>>(1, clean_s, 10).unwrap_err();
    assert!(hidden.contains("pieces are nowhere"), "{hidden}");
    let lost = origin_death::die::<Through<GivesUp>>(1, clean_s, 10).unwrap_err();
    assert!(lost.contains("whole"), "{lost}");
}

#[test]
fn controls_are_caught() {
    caught::<AnnouncesEarly>(crowd(4, 16), "not committed");
    caught::<Forgives>(crowd(8, 32).with_conduct(0.3, Conduct::Poisoner), "which lied");
    caught::<AssignsTwice>(crowd(4, 16), "while the lease");
    caught::<ServesUnheld>(crowd(8, 32), "which it does not hold");
}

#[test]
fn a_machine_that_forgets_its_first_word_is_found_out() {
    let mut plan = crowd(6, 24);
    plan.ends_s = 60.0;
    let outcome = run::<Through<Forgets>>(plan);
    let clean = run::<Swarm>(crowd(6, 24));
    assert!(outcome.short > 0 || outcome.ratio() > clean.ratio(), "half of all links were mute and nothing showed");
}
