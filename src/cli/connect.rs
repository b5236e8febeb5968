//! How the commands that are clients reach a server, and what their errors mean to a script.

use super::text::printable;
use crate::proto::job_service_client::JobServiceClient;
use anyhow::Context as _;
use clap::Args;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How the commands talk to a server.
pub type Client = JobServiceClient<Channel>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a single answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Not more often, or stock servers and proxies refuse the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// More than the largest job, whose input and result take more as messages than as text.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the server is unless told otherwise.
pub const SERVER: &str = "http://127.0.0.1:3000";
/// Under which the help shows what every client command takes.
pub const HEADING: &str = "Server and output";

/// Where the server is and how its answers are shown.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The server
    #[arg(long, help_heading = HEADING, env = "LONGHAUL_SERVER", value_name = "URL", default_value = SERVER)]
    pub server: String,
    /// Print the server's messages as JSON, one a line
    #[arg(long, help_heading = HEADING)]
    pub json: bool,
}

impl Connect {
    /// A client, connected.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let endpoint = endpoint(&self.server)?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| NoServer { server: self.server.clone(), cause: innermost(&error) })?;
        Ok(JobServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }
}

pub fn endpoint(server: &str) -> anyhow::Result<Endpoint> {
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    Ok(Endpoint::from_shared(url)
        .map_err(|error| Usage(format!("--server is {server:?}: {error}")))
        .context("not the address of a server")?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

/// A request that gives up after a while. A watch has no such limit.
pub fn call<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Something is wrong with what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
#[error("no server answers at {server} ({cause}); to start one: longhaul serve")]
pub struct NoServer {
    /// Where it should be.
    pub server: String,
    /// What the network says.
    pub cause: String,
}

/// What a script is told of an error: 2 for what cannot be asked for, 3 for no server, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return 2;
    }
    if error.is::<NoServer>() {
        return 3;
    }
    match error.downcast_ref::<Status>().map(Status::code) {
        Some(Code::InvalidArgument | Code::NotFound | Code::OutOfRange) => 2,
        Some(Code::Unavailable) => 3,
        _ => 1,
    }
}

/// What a person is told of an error.
pub fn explanation(error: &anyhow::Error) -> String {
    printable(&match error.downcast_ref::<Status>() {
        Some(status) if !status.message().is_empty() => status.message().to_owned(),
        Some(status) => status.code().description().to_owned(),
        None => format!("{error:#}"),
    })
}

/// The last cause of an error, which is what says most.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_can_tell_a_slip_from_a_server_that_is_not_there() {
        let no_server = NoServer { server: "here".to_owned(), cause: "refused".to_owned() };

        assert_eq!(exit_code(&Usage("no".to_owned()).into()), 2);
        assert_eq!(exit_code(&anyhow::Error::from(Usage("no".to_owned())).context("more")), 2);
        assert_eq!(exit_code(&Status::invalid_argument("").into()), 2);
        assert_eq!(exit_code(&Status::not_found("").into()), 2);
        assert_eq!(exit_code(&no_server.into()), 3);
        assert_eq!(exit_code(&Status::unavailable("").into()), 3);
        assert_eq!(exit_code(&Status::internal("").into()), 1);
        assert_eq!(exit_code(&anyhow::anyhow!("the disk is full")), 1);
    }

    #[test]
    fn a_server_can_be_named_without_its_scheme() {
        assert_eq!(endpoint("127.0.0.1:3000").unwrap().uri(), "http://127.0.0.1:3000/");
        assert!(endpoint("http://[").is_err());
    }
}
