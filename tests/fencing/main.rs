//! Two zombies, a canceller and crashes: everything that they can do to one job, tried out on the real `job::transition`.
//!
//! `world` is who there is and what may happen, `step` what comes of it, `laws` what must stay true, `mutant` the servers
//! that break it. The search is our own: the crate `stateright` brings an HTTP server that cannot be left out, and takes two
//! states of one hash for one.

mod laws;
mod mutant;
mod search;
mod step;
mod world;

use laws::{LAWS, Law, SIGHTS, Sight};
use mutant::Mutant;
use rstest::rstest;
use search::{Found, search};
use std::time::Instant;
use world::{Bounds, World};

/// Messages that overtake each other, between leases that come and go.
const MESSAGES: Bounds = Bounds { attempts: 2, leases: 3, in_flight: 2, crashes: 0 };
/// As many leases, and a server that crashes.
const CRASH: Bounds = Bounds { attempts: 2, leases: 3, in_flight: 1, crashes: 1 };
/// Both, for fewer leases.
const BOTH: Bounds = Bounds { attempts: 2, leases: 2, in_flight: 2, crashes: 1 };
/// All together: half a million states, and so half a minute at the least for a server that is sound. A broken one is found
/// to be so long before.
const ALL: Bounds = Bounds { attempts: 2, leases: 3, in_flight: 2, crashes: 1 };

/// Searches the world of a server, and says what it took.
fn explore(mutant: Option<Mutant>, bounds: Bounds, laws: &[Law]) -> Found<World> {
    let begin = Instant::now();
    let found = search(World::new(bounds, mutant), laws);
    let Found { states, steps, depth, .. } = found;
    println!("{mutant:?} {bounds:?}: {states} states, {steps} steps, depth {depth}, {:?}", begin.elapsed());
    if let Some((law, way)) = &found.counterexample {
        println!("{law:?} is broken after {} actions:", way.len());
        way.iter().for_each(|action| println!("  {action:?}"));
    }
    found
}

#[rstest]
#[case::messages(MESSAGES, &[Sight::EarlierKeeperRefused, Sight::LeaseOutlivesItsServer])]
#[case::crash(CRASH, &[])]
#[case::both(BOTH, &[Sight::TwoZombiesAndAHolder])]
#[ignore = "it takes a minute: cargo test --test fencing -- --ignored"]
#[case::all(ALL, &[])]
fn whatever_zombies_crashes_and_a_canceller_do_no_law_is_broken(
    #[case] bounds: Bounds,
    #[case] out_of_reach: &[Sight],
) {
    let found = explore(None, bounds, &LAWS);

    assert!(found.counterexample.is_none(), "{:?}", found.counterexample);
    let unseen: Vec<_> = SIGHTS.into_iter().filter(|sight| !found.seen.contains(sight)).collect();
    assert_eq!(unseen, out_of_reach);
}

#[rstest]
#[case::two_hold_a_job(Mutant::LeasesWhatIsHeld, Law::OneHolder)]
#[case::a_zombie_records(Mutant::NoFencing, Law::OneLease)]
#[case::two_hear_success(Mutant::NoFencing, Law::OneSuccess)]
#[case::an_earlier_keeper_acts(Mutant::NoFencingOfKeepers, Law::OneKeeper)]
#[case::a_repeat_is_refused(Mutant::ForgetsEndedLeases, Law::SameAnswer)]
#[case::a_late_failure_is_refused(Mutant::ForgetsEndedLeases, Law::GraceIsTold)]
#[case::a_cancelled_job_succeeds(Mutant::CancelDoesNotWin, Law::CancelWins)]
#[case::an_end_is_undone(Mutant::CancelsWhatHasEnded, Law::OneOutcome)]
#[case::void_output_stays(Mutant::KeepsVoidOutput, Law::WholeOutput)]
fn a_broken_server_is_found_out(#[case] mutant: Mutant, #[case] law: Law) {
    let found = explore(Some(mutant), ALL, &[law]);

    assert_eq!(found.counterexample.map(|(broken, _)| broken), Some(law));
}
