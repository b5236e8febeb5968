//! The connection that the streams share, and which they leave for a new one when nothing comes over it any more.

use crate::proto::worker_service_client::WorkerServiceClient;
use http::{Request, Response};
use parking_lot::Mutex;
use std::fmt;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// The largest message that is taken: an assignment has an input of 1 MiB at most.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Whatever carries calls to a server: one connection, or what does as one.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// A connection by tonic as one of these.
pub fn by_tonic(channel: tonic::transport::Channel) -> Channel {
    Channel::new(channel.map_err(|error| Status::from_error(error.into())))
}

/// Calls the server.
pub type Client = WorkerServiceClient<Channel>;

/// A way to the server.
pub struct Connection {
    dial: Box<dyn Fn() -> Channel + Send + Sync>,
    current: Mutex<(Channel, CancellationToken)>,
}

impl Connection {
    /// Reaches the server by `dial`, each time by a connection of its own.
    pub fn new(dial: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        let current = Mutex::new((dial(), CancellationToken::new()));
        Self { dial: Box::new(dial), current }
    }

    /// A client over the present connection, and what is cancelled when that is left.
    pub fn client(&self) -> (Client, CancellationToken) {
        let (channel, left) = self.current.lock().clone();
        (WorkerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX), left)
    }

    /// Gives the connection up: it may be half open, of which TCP tells nobody for a quarter of an hour. All streams are made
    /// anew on another.
    pub fn leave(&self) {
        let next = ((self.dial)(), CancellationToken::new());
        let (_, left) = std::mem::replace(&mut *self.current.lock(), next);
        left.cancel();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}
