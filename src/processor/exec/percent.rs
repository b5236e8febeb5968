//! Finds progress in lines that are written for people: `42 %`, `3/10`.

use super::message::Step;

/// How far a line says that its program has come; the last that it says where it says several things.
pub fn find(line: &[u8]) -> Option<Step> {
    let text = String::from_utf8_lossy(line);
    let percent =
        text.match_indices('%').filter_map(|(at, _)| number_before(text[..at].trim_end())).next_back();
    let mut counts = text.match_indices('/').filter_map(|(at, _)| {
        let completed: i64 = digits_before(&text[..at]).parse().ok()?;
        let total: i64 = digits_after(&text[at + 1..]).parse().ok()?;
        (total > 0 && completed <= total).then_some((completed, total))
    });
    let count = counts.next_back();
    let fraction = percent
        .map(|percent| percent / 100.0)
        .or(count.map(|(completed, total)| completed as f64 / total as f64));
    Some(Step {
        fraction: Some(fraction.filter(|fraction| (0.0..=1.0).contains(fraction))?),
        completed: count.map(|(completed, _)| completed),
        total: count.map(|(_, total)| total),
        ..Default::default()
    })
}

fn number_before(text: &str) -> Option<f64> {
    let start = text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    text[start..].parse().ok()
}

/// Part of a path or a date is no count.
const JOINS: [char; 3] = ['/', '-', '.'];

fn digits_before(text: &str) -> &str {
    let start = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if text[..start].ends_with(JOINS) { "" } else { &text[start..] }
}

fn digits_after(text: &str) -> &str {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.starts_with(JOINS) { "" } else { &text[..text.len() - rest.len()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("42%", Some(0.42), None)]
    #[case("  7.5 % done", Some(0.075), None)]
    #[case("page 3/10", Some(0.3), Some((3, 10)))]
    #[case(" 30%|███   | 3/10 [00:01<00:02]", Some(0.3), Some((3, 10)))]
    #[case("10% then 20%", Some(0.2), None)]
    #[case("é 50%", Some(0.5), None)]
    #[case("100 % sure", Some(1.0), None)]
    #[case("250% of what was asked", None, None)]
    #[case("written to /tmp/3/10", None, None)]
    #[case("2026/11/28", None, None)]
    #[case("% of nothing", None, None)]
    #[case("11/10", None, None)]
    #[case("plain text", None, None)]
    fn progress_is_found(
        #[case] line: &str,
        #[case] fraction: Option<f64>,
        #[case] count: Option<(i64, i64)>,
    ) {
        let step = find(line.as_bytes());

        assert_eq!(step.as_ref().and_then(|step| step.fraction), fraction);
        assert_eq!(step.and_then(|step| step.completed.zip(step.total)), count);
    }
}
