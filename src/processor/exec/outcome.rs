//! What a program's end means for its job.

use super::attempt::Verdict;
use super::warden::End;
use crate::job::{Failure, reason};
use bytes::Bytes;
use serde_json::json;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

/// The exit code that asks to be tried again: `EX_TEMPFAIL` of sysexits.h.
const TRY_AGAIN: i32 = 75;
/// What a job returns whose program returned nothing.
const NOTHING: Bytes = Bytes::from_static(b"null");

/// What a program has said of its job's end.
pub fn of_verdict(verdict: Verdict) -> Result<Bytes, Failure> {
    match verdict.failure {
        Some(failure) => Err(failure),
        None => Ok(verdict.result.unwrap_or(NOTHING)),
    }
}

/// What has come of the job of a program that has ended.
pub fn of(end: End, verdict: Verdict) -> Result<Bytes, Failure> {
    if verdict.failure.is_some() {
        return of_verdict(verdict);
    }
    let last_words = &verdict.last_words;
    let status = ExitStatus::from_raw(end.status);
    let told = |text: String| {
        if last_words.is_empty() { text } else { format!("{text}: {last_words}") }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => of_verdict(verdict),
        (Some(TRY_AGAIN), _) => Err(failed(
            reason::TEMPORARY_FAILURE,
            told(format!("exit code {TRY_AGAIN}, which asks to be tried again")),
            json!({"exit_code": TRY_AGAIN}),
        )),
        (Some(code), _) => {
            Err(failed(reason::EXIT_CODE, told(format!("exit code {code}")), json!({"exit_code": code})))
        }
        (None, signal) => {
            let why = match (end.too_many_processes, end.memory_ran_out) {
                (true, _) => ", for it had started more processes than it may",
                (_, true) => ", as the kernel does when memory has run out",
                _ => "",
            };
            let text = told(format!("killed by {}{why}", status.to_string().replace("signal: ", "signal ")));
            Err(failed(reason::KILLED, text, json!({"signal": signal})))
        }
    }
}

/// What has come of the job of a program that was to go on, and has ended.
pub fn of_persistent(end: End, verdict: Verdict) -> Result<Bytes, Failure> {
    match ExitStatus::from_raw(end.status).code() {
        Some(0) if verdict.failure.is_none() => Err(failed(
            reason::EXIT_CODE,
            "the program has ended before it gave a result".to_owned(),
            json!({"exit_code": 0}),
        )),
        _ => of(end, verdict),
    }
}

/// What a job returns that has made a file.
pub fn of_file(path: &Path) -> Result<Bytes, Failure> {
    let what = match std::fs::metadata(path) {
        Ok(file) if file.is_file() => {
            let result = json!({"path": path.to_string_lossy(), "bytes": file.len()});
            return Ok(result.to_string().into());
        }
        Ok(_) => "is no file".to_owned(),
        Err(error) => format!("is not there: {error}"),
    };
    Err(Failure::new(reason::INVALID_RESULT, format!("{} {what}", path.display())))
}

fn failed(reason: &'static str, message: String, details: serde_json::Value) -> Failure {
    Failure { details: Some(details.to_string().into()), ..Failure::new(reason, message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SIGNAL: i32 = 11;
    const KILLED: i32 = 9;

    fn ended(status: i32) -> End {
        End { status, memory_ran_out: false, too_many_processes: false }
    }

    fn code(code: i32) -> End {
        ended(code << 8)
    }

    #[test]
    fn success_is_an_exit_with_0_whether_it_has_a_result_or_not() {
        let verdict = Verdict { result: Some(Bytes::from_static(b"1")), ..Default::default() };

        assert_eq!(of(code(0), verdict), Ok(Bytes::from_static(b"1")));
        assert_eq!(of(code(0), Verdict::default()), Ok(NOTHING));
    }

    #[rstest]
    #[case(code(3), "EXIT_CODE", "exit code 3: no such model")]
    #[case(code(75), "TEMPORARY_FAILURE", "exit code 75, which asks to be tried again: no such model")]
    #[case(ended(SIGNAL), "KILLED", "killed by signal 11 (SIGSEGV): no such model")]
    #[case(End { memory_ran_out: true, ..ended(KILLED) }, "KILLED", "killed by signal 9 (SIGKILL), as the kernel does when memory has run out: no such model")]
    #[case(End { too_many_processes: true, ..ended(KILLED) }, "KILLED", "killed by signal 9 (SIGKILL), for it had started more processes than it may: no such model")]
    fn every_other_end_is_a_failure_with_its_reason(
        #[case] end: End,
        #[case] reason: &str,
        #[case] message: &str,
    ) {
        let result = Some(Bytes::from_static(b"1"));
        let verdict = Verdict { result, last_words: "no such model".to_owned(), ..Default::default() };

        let failure = of(end, verdict).unwrap_err();

        assert_eq!((failure.reason.as_ref(), failure.message.as_str()), (reason, message));
        assert!(!failure.permanent && failure.details.is_some(), "{failure:?}");
    }

    #[test]
    fn a_failure_that_was_told_counts_more_than_an_exit_code() {
        let told = Failure::new("NO_SPEECH", "m").permanent();
        let verdict = || Verdict { failure: Some(told.clone()), ..Default::default() };

        assert_eq!(of(code(0), verdict()), Err(told.clone()));
        assert_eq!(of(code(1), verdict()), Err(told.clone()));
        assert_eq!(of_persistent(code(0), verdict()), Err(told));
    }

    #[test]
    fn a_program_that_was_to_go_on_and_ends_has_failed() {
        let failure = of_persistent(code(0), Verdict::default()).unwrap_err();

        assert_eq!(failure.reason, reason::EXIT_CODE);
    }

    #[test]
    fn a_file_that_was_made_is_the_result() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made");
        std::fs::write(&path, "12345").unwrap();

        let result: serde_json::Value = serde_json::from_slice(&of_file(&path).unwrap()).unwrap();

        assert_eq!(result, json!({"path": path.to_str(), "bytes": 5}));
        assert_eq!(of_file(folder.path()).unwrap_err().reason, reason::INVALID_RESULT);
        assert_eq!(of_file(&folder.path().join("missing")).unwrap_err().reason, reason::INVALID_RESULT);
    }
}
