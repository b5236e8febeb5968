//! Watching a job to its end, whatever happens to the connection or the server in between.

use super::connect::Client;
use super::view::View;
use crate::proto::{JobEvent, WatchJobRequest};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// The first wait before another try; each further one is twice as long.
const WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Shows a watch to somebody.
pub trait Screen: Send {
    /// A message came, which the view includes already.
    fn message(&mut self, view: &View, event: &JobEvent);
    /// The connection broke; another is tried.
    fn reconnecting(&mut self, view: &View);
    /// The job has ended.
    fn end(&mut self, view: &View);
    /// Nobody wants to see more, though the job has not ended.
    fn leave(&mut self);
}

/// Watches to the end and returns what is known then.
///
/// # Errors
///
/// What another try would not change, and any error of the first call; a break is one once it has lasted for `patience`.
pub async fn follow(
    mut client: Client,
    mut request: WatchJobRequest,
    patience: Duration,
    screen: &mut dyn Screen,
) -> Result<View, Status> {
    let mut view = View::default();
    let mut heard = None;
    let mut wait = WAIT;
    loop {
        let broken = match client.watch_job(request.clone()).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            heard = Some(Instant::now());
                            wait = WAIT;
                            request.after_sequence = Some(event.sequence);
                            view.apply(&event);
                            screen.message(&view, &event);
                        }
                        Ok(None) if view.is_final() => {
                            screen.end(&view);
                            return Ok(view);
                        }
                        Ok(None) => break Status::unavailable("the watch ended before the job"),
                        Err(status) => break status,
                    }
                }
            }
        };
        let Some(last) = heard else { return Err(broken) };
        if !is_break(broken.code()) || last.elapsed() > patience {
            return Err(broken);
        }
        screen.reconnecting(&view);
        tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
        wait = (2 * wait).min(WAIT_MAX);
    }
}

/// Whether it is worth another try.
fn is_break(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Aborted
        | Code::ResourceExhausted => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}
