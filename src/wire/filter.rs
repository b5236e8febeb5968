//! Which jobs a list or a watch is about, and where a list goes on.

use super::request::{Violations, checked_timestamp};
use crate::job::{Filter, State, Timestamp, Violation, check_kind, check_labels};
use crate::proto;
use prost::Message;

/// How many kinds a filter may name; each is looked for on its own.
pub const KINDS_MAX: usize = 64;
/// How many states it may name; there are nine, and somebody's list of them may have doubles.
pub const STATES_MAX: usize = 64;

/// The filter of a request.
pub fn filter(filter: Option<proto::JobFilter>) -> Result<Filter, Violations> {
    let proto::JobFilter { states, kinds, labels, create_time_min, create_time_max } =
        filter.unwrap_or_default();
    let mut violations = Violations::new();
    if states.len() > STATES_MAX {
        let text = format!("there are {} states; the limit is {STATES_MAX}", states.len());
        violations.push(Violation::new("filter.states", text));
    }
    let states =
        states.into_iter().take(STATES_MAX).enumerate().filter_map(|(index, number)| match state(number) {
            Some(state) => Some(state),
            None => {
                let field = format!("filter.states[{index}]");
                violations.push(Violation::new(field, format!("{number} is no state")));
                None
            }
        });
    // However often a state is named, it is meant once.
    let named: Vec<State> = states.collect();
    let states = State::ALL.into_iter().filter(|state| named.contains(state)).collect();
    let kinds = match checked_kinds(kinds, "filter.kinds", KINDS_MAX) {
        Ok(kinds) => kinds,
        Err(others) => {
            violations.extend(others);
            Vec::new()
        }
    };
    if let Err(others) = check_labels(&labels) {
        let inside =
            |violation: Violation| Violation { field: format!("filter.{}", violation.field), ..violation };
        violations.extend(others.into_iter().map(inside));
    }
    let mut time = |time: Option<prost_types::Timestamp>, field| {
        let time = time?;
        // Jobs have times in whole microseconds: the first one that is not before a bound is the same bound.
        let part = i64::from(time.nanos % 1_000 > 0);
        let checked = checked_timestamp(time, field).map_err(|violation| violations.push(violation)).ok()?;
        Some(Timestamp::from_micros(checked.as_micros() + part))
    };
    let created_from = time(create_time_min, "filter.create_time_min");
    let created_before = time(create_time_max, "filter.create_time_max");
    match violations.is_empty() {
        true => Ok(Filter { states, kinds, labels, created_from, created_before }),
        false => Err(violations),
    }
}

/// Kinds that are looked for, each once; no more than `most` are named.
pub fn checked_kinds(mut kinds: Vec<String>, field: &str, most: usize) -> Result<Vec<String>, Violations> {
    if kinds.len() > most {
        let text = format!("there are {} kinds; the limit is {most}", kinds.len());
        return Err(vec![Violation::new(field, text)]);
    }
    let mut violations = Violations::new();
    for (index, kind) in kinds.iter().enumerate() {
        let others = check_kind(kind).err().unwrap_or_default();
        let named = |violation| Violation { field: format!("{field}[{index}]"), ..violation };
        violations.extend(others.into_iter().map(named));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

/// Tells one filter from another.
pub fn fingerprint(filter: &Option<proto::JobFilter>) -> u32 {
    let message = filter.as_ref().map(Message::encode_to_vec);
    crc32fast::hash(&message.unwrap_or_default())
}

/// The token of the page that goes on at a place of a list.
pub fn page_token(before: i64, fingerprint: u32) -> String {
    format!("{before:x}.{fingerprint:08x}")
}

/// Where a page goes on.
pub fn page_start(token: &str, fingerprint: u32) -> Result<Option<i64>, Violations> {
    if token.is_empty() {
        return Ok(None);
    }
    let violation = |text: &str| vec![Violation::new("page_token", text)];
    let parts = token.split_once('.').and_then(|(before, of)| {
        Some((i64::from_str_radix(before, 16).ok()?, u32::from_str_radix(of, 16).ok()?))
    });
    match parts {
        // Only what was handed out: a number can be written in other ways too.
        Some((before, of)) if token != page_token(before, of) => {
            Err(violation("it is not the next_page_token of a page"))
        }
        Some((before, of)) if of == fingerprint => Ok(Some(before)),
        Some(_) => Err(violation("it belongs to a list with another filter")),
        None => Err(violation("it is not the next_page_token of a page")),
    }
}

fn state(number: i32) -> Option<State> {
    match proto::job::State::try_from(number).ok()? {
        proto::job::State::Unspecified => None,
        proto::job::State::Scheduled => Some(State::Scheduled),
        proto::job::State::Pending => Some(State::Pending),
        proto::job::State::Running => Some(State::Running),
        proto::job::State::Retrying => Some(State::Retrying),
        proto::job::State::Cancelling => Some(State::Cancelling),
        proto::job::State::Succeeded => Some(State::Succeeded),
        proto::job::State::Failed => Some(State::Failed),
        proto::job::State::Cancelled => Some(State::Cancelled),
        proto::job::State::Expired => Some(State::Expired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[rstest]
    #[case(proto::JobFilter { states: vec![2, 77], ..Default::default() }, "filter.states[1]")]
    #[case(proto::JobFilter { states: vec![0], ..Default::default() }, "filter.states[0]")]
    #[case(proto::JobFilter { states: vec![2; 65], ..Default::default() }, "filter.states")]
    #[case(proto::JobFilter { kinds: vec!["k".to_owned(), "K".to_owned()], ..Default::default() }, "filter.kinds[1]")]
    #[case(proto::JobFilter { kinds: vec!["k".to_owned(); 65], ..Default::default() }, "filter.kinds")]
    #[case(proto::JobFilter { labels: [(String::new(), "v".to_owned())].into(), ..Default::default() }, "filter.labels[\"\"]")]
    #[case(proto::JobFilter { create_time_min: at(i64::MAX), ..Default::default() }, "filter.create_time_min")]
    #[case(proto::JobFilter { create_time_max: at(i64::MIN), ..Default::default() }, "filter.create_time_max")]
    fn what_is_wrong_is_named_by_its_path(#[case] bad: proto::JobFilter, #[case] field: &str) {
        let violations = filter(Some(bad)).unwrap_err();

        assert_eq!(violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>(), [field]);
    }

    #[test]
    fn every_state_can_be_asked_for() {
        let states = (1..=9).collect();

        let filter = filter(Some(proto::JobFilter { states, ..Default::default() })).unwrap();

        assert_eq!(filter.states, State::ALL);
    }

    #[test]
    fn a_bound_between_two_microseconds_is_the_later_one() {
        let bound = |nanos| Some(prost_types::Timestamp { seconds: 1, nanos });

        for (nanos, micros) in [(0, 1_000_000), (1, 1_000_001), (1_000, 1_000_001), (1_999, 1_000_002)] {
            let message = proto::JobFilter {
                create_time_min: bound(nanos),
                create_time_max: bound(nanos),
                ..Default::default()
            };
            let Filter { created_from, created_before, .. } = filter(Some(message)).unwrap();

            assert_eq!(created_from, Some(Timestamp::from_micros(micros)), "{nanos} ns");
            assert_eq!(created_before, created_from);
        }
    }

    #[test]
    fn a_page_goes_on_in_the_list_that_it_belongs_to() {
        let token = page_token(1_882_686_005_048_246_272, 7);

        assert_eq!(page_start(&token, 7), Ok(Some(1_882_686_005_048_246_272)));
        assert_eq!(page_start("", 7), Ok(None));
        for (token, fingerprint) in
            [(token.as_str(), 8), ("page two", 7), ("1.", 7), (".1", 7), ("1", 7), ("-1.00000007", 7)]
        {
            assert!(page_start(token, fingerprint).is_err(), "{token}");
        }
    }
}
