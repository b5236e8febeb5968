//! Whose turn it is, and who claims when something may be ready.

use super::*;

fn kinds(names: &[&str]) -> Kinds {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Enlists workers of these kinds with so many free slots each, and lets them find out that nothing is ready.
fn idle(dispatch: &Dispatch<()>, names: &[&str], free: usize, workers: usize) -> Vec<u64> {
    let ids: Vec<u64> = (0..workers).map(|_| dispatch.enlist(&kinds(names), (), true)).collect();
    for id in &ids {
        if let Some(round) = dispatch.offer(*id, free, 0) {
            assert!(dispatch.settle(&round, &[], true).is_empty());
        }
    }
    ids
}

/// How many of the slots are whose.
fn dealt(round: &Round<()>, ids: &[u64]) -> Vec<usize> {
    ids.iter().map(|id| round.slots.iter().filter(|(taker, _)| taker == id).count()).collect()
}

/// A small job of this kind for each of these.
fn jobs<'a>(kind: &'a str, takers: &[u64]) -> Vec<Given<'a>> {
    takers.iter().map(|taker| Given { taker: Some(*taker), kind, bytes: 1 }).collect()
}

#[test]
fn a_burst_is_dealt_evenly() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 16, 4);

    let first = dispatch.hint("a").unwrap();
    (0..9).for_each(|_| assert!(dispatch.hint("a").is_none(), "a claim is under way"));
    let rest = dispatch.settle(&first, &jobs("a", &ids[..1]), false).remove(0);

    assert_eq!(dealt(&first, &ids), [1, 0, 0, 0]);
    assert_eq!(dealt(&rest, &ids), [2, 3, 2, 2]);
}

#[test]
fn the_one_that_holds_fewer_comes_first() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 4, 2);
    assert!(dispatch.offer(ids[0], 4, 3).is_none());

    let round = dispatch.hint("a").unwrap();

    assert_eq!(dealt(&round, &ids), [0, 1]);
}

#[test]
fn without_news_nobody_claims_and_after_them_once() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 1, 3);

    assert!(ids.iter().all(|id| dispatch.offer(*id, 1, 0).is_none()));
    let round = dispatch.hint("a").unwrap();
    let after = dispatch.settle(&round, &jobs("a", &ids[..1]), false);

    assert_eq!((round.slots.len(), after.len()), (1, 0));
}

#[test]
fn what_one_group_cannot_take_another_gets() {
    let dispatch = Dispatch::default();
    let few = idle(&dispatch, &["a"], 1, 1);
    let others = idle(&dispatch, &["a", "b"], 1, 1);

    let first = dispatch.hint("a").unwrap();
    let second = dispatch.hint("a").unwrap();
    let third = dispatch.hint("a");

    assert_eq!((dealt(&first, &few), dealt(&second, &others)), (vec![1], vec![1]));
    assert!(third.is_none());
    dispatch.offer(others[0], 2, 0);
    let next = dispatch.settle(&first, &jobs("a", &few), false);
    assert!(next.is_empty(), "the other's claim is under way: {next:?}");
    let next = dispatch.settle(&second, &jobs("a", &others), false);
    assert_eq!(next.len(), 1, "the third job is still there");
}

#[test]
fn a_job_whose_group_has_got_a_better_one_instead_is_for_another_group() {
    let dispatch = Dispatch::default();
    let both = idle(&dispatch, &["a", "x"], 1, 1);
    let other = idle(&dispatch, &["a"], 1, 1);

    let round = dispatch.hint("a").unwrap();
    assert_eq!(dealt(&round, &both), [1]);
    assert!(dispatch.hint("x").is_none());
    let next = dispatch.settle(&round, &jobs("x", &both), false);

    assert_eq!((next.len(), dealt(&next[0], &other)), (1, vec![1]));
}

#[test]
fn groups_without_news_are_left_alone_however_much_there_is_for_one_that_shares_a_kind() {
    let dispatch = Dispatch::default();
    for number in 0..400 {
        idle(&dispatch, &["a", &format!("own-{number}")], 1, 1);
    }
    let busy = idle(&dispatch, &["a", "x"], 1, 1);
    let mut round = dispatch.hint("x").unwrap();
    (0..1_000).for_each(|_| assert!(dispatch.hint("x").is_none()));

    for _ in 0..1_000 {
        let next = dispatch.settle(&round, &jobs("x", &busy), false);
        assert!(next.is_empty(), "{} claims for a job", next.len());
        assert!(dispatch.taken(busy[0], 1).is_none());
        round = dispatch.offer(busy[0], 1, 0).unwrap();
    }
    let one = dispatch.hint("a").unwrap();
    let after = dispatch.settle(&one, &jobs("a", &[one.slots[0].0]), false);

    assert_eq!((one.slots.len(), after.len()), (1, 0));
}

#[test]
fn what_a_claim_had_no_room_for_is_claimed_by_the_next() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 1, 1);
    assert!(dispatch.offer(ids[0], 0, 0).is_none());
    (0..10).for_each(|_| assert!(dispatch.hint("a").is_none()));

    let mut round = dispatch.offer(ids[0], 10, 0).unwrap();
    for left in (1..10).rev() {
        let mut next = dispatch.settle(&round, &jobs("a", &ids), false);
        round = next.remove(0);
        assert_eq!(dealt(&round, &ids), [left]);
    }
}

#[test]
fn what_became_ready_during_a_vain_claim_is_not_forgotten() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 1, 1);
    let round = dispatch.hint("a").unwrap();

    assert!(dispatch.hint("a").is_none());
    let next = dispatch.settle(&round, &[], true);

    assert_eq!((next.len(), dealt(&next[0], &ids)), (1, vec![1]));
    assert!(dispatch.settle(&next[0], &[], true).is_empty());
}

#[test]
fn who_does_not_take_what_is_there_gets_no_more_than_there_is_room_for() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 10, 1);
    let large = |bytes| [Given { bytes, ..jobs("a", &ids)[0] }];

    let round = dispatch.hint("a").unwrap();
    assert!(dispatch.settle(&round, &large(UNREAD_BYTES_MAX - 1), true).is_empty());
    let round = dispatch.hint("a").expect("there is room for one more");
    assert!(dispatch.settle(&round, &large(1 << 20), true).is_empty());
    assert!(dispatch.hint("a").is_none());
    assert!(dispatch.offer(ids[0], 8, 0).is_none());

    assert!(dispatch.taken(ids[0], UNREAD_BYTES_MAX - 1).is_none());
    assert!(dispatch.taken(ids[0], 1 << 20).is_some());
}

#[test]
fn an_offer_counts_what_is_on_its_way() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 4, 1);
    let round = dispatch.hint("a").unwrap();

    dispatch.offer(ids[0], 1, 3);
    dispatch.settle(&round, &jobs("a", &ids), false);
    assert!(dispatch.hint("a").is_none(), "its one slot is taken");

    assert!(dispatch.taken(ids[0], 1).is_none());
    assert!(dispatch.offer(ids[0], 1, 3).is_some());
}

#[test]
fn who_wants_no_more_meanwhile_is_not_offered_what_a_claim_left_over() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 3, 1);
    let round = dispatch.hint("a").unwrap();

    dispatch.offer(ids[0], 0, 0);
    dispatch.settle(&round, &[], true);

    assert!(dispatch.hint("a").is_none());
}

#[test]
fn who_has_left_gets_nothing_and_is_forgotten() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 1, 2);

    dispatch.leave(ids[0]);
    let round = dispatch.hint("a").unwrap();
    dispatch.leave(ids[1]);
    dispatch.settle(&round, &[], true);

    assert_eq!(dealt(&round, &ids), [0, 1]);
    assert!(dispatch.hint("a").is_none() && dispatch.0.lock().takers.is_empty());
}

#[test]
fn of_groups_that_come_and_go_only_some_are_remembered() {
    let dispatch = Dispatch::default();
    let stays = idle(&dispatch, &["a", "stays"], 1, 1);

    for number in 0..10 * EMPTY_GROUPS_MAX {
        let ids = idle(&dispatch, &["a", &format!("own-{number}")], 1, 1);
        dispatch.leave(ids[0]);
    }

    let (groups, by_kinds) = {
        let book = dispatch.0.lock();
        (book.groups.len(), book.by_kinds.len())
    };
    assert!(groups <= EMPTY_GROUPS_MAX + 2 && groups == by_kinds, "{groups}, {by_kinds}");
    assert_eq!(dealt(&dispatch.hint("a").unwrap(), &stays), [1]);
}

#[test]
fn a_claim_that_failed_is_made_again_only_when_told() {
    let dispatch = Dispatch::default();
    idle(&dispatch, &["a"], 1, 1);
    let round = dispatch.hint("a").unwrap();

    dispatch.fail(&round);

    assert!(dispatch.hint("a").is_none());
    assert_eq!(dispatch.resume(&round).len(), 1);
}

#[test]
fn who_is_turned_away_gets_nothing_before_it_offers_anew() {
    let dispatch = Dispatch::default();
    let ids = idle(&dispatch, &["a"], 1, 2);

    dispatch.turn_away();

    assert!(dispatch.hint("a").is_none());
    let again = dispatch.offer(ids[1], 1, 0).unwrap();
    assert_eq!(dealt(&again, &ids), [0, 1]);
}

#[test]
fn everybody_is_present_with_what_it_can_still_take() {
    let dispatch = Dispatch::default();
    let busy = idle(&dispatch, &["a"], 3, 1);
    idle(&dispatch, &["b"], 2, 1);
    dispatch.enlist(&kinds(&["c"]), (), false);

    let round = dispatch.hint("a").unwrap();
    let mut coming: Vec<usize> = dispatch.present().into_iter().map(|(_, free)| free).collect();
    dispatch.settle(&round, &jobs("a", &busy), false);
    dispatch.leave(busy[0]);
    let mut left: Vec<usize> = dispatch.present().into_iter().map(|(_, free)| free).collect();

    coming.sort_unstable();
    left.sort_unstable();
    assert_eq!((coming, left), (vec![0, 2, 2], vec![0, 2]));
}
