//! Doing the same to several jobs: what fails with one does not keep the others from it.

use super::connect::{exit_code, explanation};
use std::process::ExitCode;
use tonic::{Code, Status};

/// Does it to each job in turn, tells what the server refuses, and exits with what the first refusal means.
///
/// # Errors
///
/// Whatever would be the same with the next job, above all that there is no server.
pub async fn each(
    jobs: &[String],
    mut deed: impl AsyncFnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut code = 0;
    for job in jobs {
        let Err(error) = deed(job).await else { continue };
        if !is_about_this_job(&error) {
            return Err(error);
        }
        eprintln!("longhaul: {job}: {}", explanation(&error));
        if code == 0 {
            code = exit_code(&error);
        }
    }
    Ok(ExitCode::from(code))
}

fn is_about_this_job(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<Status>().map(Status::code);
    matches!(code, Some(Code::NotFound | Code::FailedPrecondition | Code::InvalidArgument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_refused_for_one_job_is_still_done_to_the_next() {
        let jobs = ["a", "gone", "b"].map(str::to_owned);
        let mut done = Vec::new();

        let code = each(&jobs, async |job| {
            if job == "gone" {
                return Err(Status::not_found("there is no such job").into());
            }
            done.push(job.to_owned());
            Ok(())
        })
        .await;

        assert_eq!(done, ["a", "b"]);
        assert_eq!(code.unwrap(), ExitCode::from(2));
    }

    #[tokio::test]
    async fn without_a_server_there_is_no_second_try() {
        let jobs = ["a", "b"].map(str::to_owned);
        let mut tries = 0;

        let code = each(&jobs, async |_| {
            tries += 1;
            Err(Status::unavailable("").into())
        })
        .await;

        assert_eq!((code.is_err(), tries), (true, 1));
    }
}
