//! What lies between the server and everybody else: calls pass whole layers of gRPC, and frames that are late, lost, or held
//! up behind a partition; connections break at either end.
//!
//! In place of HTTP/2 a call is a task, and its frames lie in a short queue: what a stream of it promises, and no more.

use crate::lots::Lots;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use longhaul::proto::job_service_server::JobServiceServer;
use longhaul::proto::worker_service_server::WorkerServiceServer;
use longhaul::rpc;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

/// How many frames of an answer are under way; the server waits with more.
const FRAMES: usize = 16;

/// The services of one process of the server, for as long as it lives.
#[derive(Clone)]
pub struct Served {
    pub jobs: JobServiceServer<rpc::Jobs>,
    pub workers: WorkerServiceServer<rpc::Workers>,
    pub dead: CancellationToken,
}

/// All wires.
pub struct Network {
    served: Mutex<Option<Served>>,
    /// Things go wrong, for now.
    stormy: Arc<AtomicBool>,
    epoch: Instant,
}

/// The wire of one machine.
pub struct Wire {
    network: Arc<Network>,
    lots: Lots,
    /// By how many at once.
    held_up: AtomicUsize,
    /// It is not held up any more. (Not `watch`, which wakes those who wait in an order of its own.)
    opened: Notify,
    broken: Mutex<CancellationToken>,
    /// The machine is gone for good.
    cut: AtomicBool,
}

impl Network {
    pub fn new(stormy: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self { served: Mutex::new(None), stormy, epoch: Instant::now() })
    }

    /// Who is reached from now on.
    pub fn serve(&self, served: Option<Served>) {
        *self.served.lock() = served;
    }

    pub fn is_served(&self) -> bool {
        self.served.lock().as_ref().is_some_and(|served| !served.dead.is_cancelled())
    }

    pub fn calm(&self) {
        self.stormy.store(false, Ordering::SeqCst);
    }

    pub fn is_stormy(&self) -> bool {
        self.stormy.load(Ordering::SeqCst)
    }

    pub fn wire(self: &Arc<Self>, lots: Lots) -> Arc<Wire> {
        Arc::new(Wire {
            network: Arc::clone(self),
            lots,
            held_up: AtomicUsize::new(0),
            opened: Notify::new(),
            broken: Mutex::default(),
            cut: AtomicBool::new(false),
        })
    }
}

impl Wire {
    /// Ends every connection over it.
    pub fn break_all(&self) {
        self.broken.lock().cancel();
    }

    /// Lets nothing pass, and tells nobody.
    pub fn hold_up(&self) {
        self.held_up.fetch_add(1, Ordering::SeqCst);
    }

    /// The end of one such time.
    pub fn let_pass(&self) {
        let left =
            self.held_up.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1));
        if left.is_ok_and(|before| before == 1) {
            self.opened.notify_waiters();
        }
    }

    /// The end of all of them.
    pub fn let_all_pass(&self) {
        self.held_up.store(0, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// The machine is no more: nothing that it says is ever heard.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.break_all();
    }

    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// A connection, which is made anew whenever it has ended.
    pub fn link(self: &Arc<Self>) -> Link {
        Link(Arc::clone(self))
    }

    fn connection(&self) -> CancellationToken {
        let mut broken = self.broken.lock();
        if broken.is_cancelled() {
            *broken = CancellationToken::new();
        }
        broken.clone()
    }
}

/// A call on its way: the lots are its own, so that what becomes of it does not depend on who else has a turn at the same time.
#[derive(Clone)]
struct Carrier {
    wire: Arc<Wire>,
    connection: CancellationToken,
    lots: Lots,
}

impl Carrier {
    /// A frame is on its way; it may be the last.
    async fn pass(&self) {
        let Self { wire, connection, lots } = self;
        let stormy = wire.network.is_stormy();
        let time = match lots.among(0..100) {
            0..60 => 0,
            60..95 => lots.among(1..4),
            95..99 if stormy => lots.among(10..300),
            99 if stormy && lots.one_in(3) => {
                connection.cancel();
                return std::future::pending().await;
            }
            _ => 1,
        };
        if time > 0 {
            tokio::time::sleep(Duration::from_millis(time)).await;
        }
        while wire.held_up.load(Ordering::SeqCst) > 0 {
            wire.opened.notified().await;
        }
    }

    /// Carries a call to the server, and what it answers back.
    async fn carry(&self, request: Request<Body>, mut answer: Answer) {
        self.pass().await;
        let served = self.wire.network.served.lock().clone();
        let Some(served) = served.filter(|served| !served.dead.is_cancelled() && !self.wire.is_cut()) else {
            let _ = answer.send(Err(Status::unavailable("connection refused")));
            return;
        };
        let dead = served.dead.clone();
        let call = async {
            let response = tokio::select! {
                biased;
                () = answer.closed() => return,
                response = self.call(served, request) => response,
            };
            self.pass().await;
            let (parts, mut body) = response.into_parts();
            let (frames, received) = mpsc::channel(FRAMES);
            let received = Received { frames: received, ended: false };
            if answer.send(Ok(Response::from_parts(parts, Body::new(received)))).is_err() {
                return;
            }
            loop {
                let frame = tokio::select! {
                    biased;
                    () = frames.closed() => return,
                    frame = body.frame() => frame,
                };
                self.pass().await;
                let is_last = frame.is_none();
                if frames.send(frame).await.is_err() || is_last {
                    return;
                }
            }
        };
        dead.run_until_cancelled(call).await;
    }

    async fn call(&self, mut served: Served, request: Request<Body>) -> Response<Body> {
        use tower::Service;
        let request = request.map(|body| self.delayed(body));
        let answered = match request.uri().path().starts_with("/longhaul.v1.JobService/") {
            true => served.jobs.call(request).await,
            false => served.workers.call(request).await,
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// What a client sends, frame by frame.
    fn delayed(&self, body: Body) -> Body {
        let carrier = Self { lots: self.lots.fork(), ..self.clone() };
        let frames = stream::unfold((body, carrier), |(mut body, carrier)| async move {
            let frame = body.frame().await?;
            carrier.pass().await;
            Some((frame, (body, carrier)))
        });
        Body::new(StreamBody::new(Box::pin(frames)))
    }
}

type Answer = oneshot::Sender<Result<Response<Body>, Status>>;

/// What generated clients call over.
#[derive(Clone)]
pub struct Link(Arc<Wire>);

impl tower::Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        let wire = Arc::clone(&self.0);
        let connection = wire.connection();
        let lots = wire.lots.of_the_moment(wire.network.epoch, request.uri().path());
        let carrier = Carrier { connection: connection.clone(), lots, wire };
        tokio::spawn(async move {
            connection.run_until_cancelled(carrier.carry(request, answer)).await;
        });
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(broken())) })
    }
}

fn broken() -> Status {
    Status::unavailable("the connection broke")
}

/// The body of an answer, as far as it has come.
struct Received {
    /// None is its end.
    frames: mpsc::Receiver<Option<Result<Frame<bytes::Bytes>, Status>>>,
    ended: bool,
}

impl hyper::body::Body for Received {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match std::task::ready!(self.frames.poll_recv(context)) {
            Some(Some(frame)) => Some(frame),
            Some(None) => None,
            None => Some(Err(broken())),
        };
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}
