//! The `Work` stream: one worker's assignments, reports and directives.
//!
//! Like every stream here it is pulled by its client, and no task stands behind it: a worker that does not read its
//! directives is not heard either, and its leases end.

use super::reports::{self, Ending, Renewed};
use crate::engine::{Engine, Error, LeaseTerms, Leased, Order, Place, StopListener, Stopping};
use crate::job::{LeaseToken, State, Violation};
use crate::proto::{self, work_request, work_response};
use crate::wire::refusals::Refusals;
use crate::wire::{lease, reply, report, status};
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tonic::{Status, Streaming};
use work_request::Message;
use work_response::Message as Answer;

/// How long a worker has to introduce itself.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How many reports of a stream are on their way to be durable; more wait to be read.
const REPORTS_MAX: usize = 1_024;

type Pending<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What the server sends on one stream.
pub fn responses(
    engine: Engine,
    refusals: Refusals,
    mut requests: Streaming<proto::WorkRequest>,
) -> impl Stream<Item = Result<proto::WorkResponse, Status>> + Send {
    let begin = async move {
        let introduced = tokio::time::timeout(HELLO_TIME, requests.message()).await;
        let first = introduced.map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??;
        match first.map(|first| first.message) {
            Some(Some(Message::Hello(hello))) => {
                Session::begin(engine, refusals, requests, hello).await.map(Some)
            }
            Some(_) => Err(invalid("message", "the first message must be hello")),
            None => Ok(None),
        }
    };
    let begun = stream::once(begin).map(|begun| {
        let (session, failed) = match begun {
            Ok(session) => (session, None),
            Err(status) => (None, Some(Err(status))),
        };
        let answers = stream::unfold(session, async |session| {
            let mut session = session?;
            match session.next().await {
                Some(Ok(answer)) => Some((Ok(proto::WorkResponse { message: Some(answer) }), Some(session))),
                Some(Err(status)) => Some((Err(status), None)),
                None => None,
            }
        });
        stream::iter(failed).chain(answers)
    });
    begun.flatten()
}

/// One stream, from its hello on.
struct Session {
    engine: Engine,
    refusals: Refusals,
    requests: Streaming<proto::WorkRequest>,
    /// The worker has said all that it will.
    heard_all: bool,
    place: Place,
    /// How many assignments the stream has brought.
    sent: u64,
    /// How many more the worker can take, as far as it has said.
    free: usize,
    /// The worker takes no more, or the server gives no more.
    draining: bool,
    /// It was told that the server is about to stop; and the server stops.
    sent_away: bool,
    closing: bool,
    /// The worker has been silent for too long to be given anything.
    deaf: bool,
    /// Answers that are ready.
    outbox: VecDeque<Answer>,
    /// Leases whose worker is to be told what becomes of them, and how many reports that are to end each are on their way.
    held: HashMap<LeaseToken, usize>,
    orders: Pending<(LeaseToken, watch::Receiver<Order>)>,
    reports: Pending<Reported>,
    stopping: StopListener,
    /// Wakes when the worker has been silent for too long.
    silence: Pin<Box<Sleep>>,
    heard: Instant,
    terms: LeaseTerms,
}

/// What came of a report.
enum Reported {
    /// Leases were renewed.
    Renewed(Vec<Renewed>),
    /// An attempt was to end.
    Ended(LeaseToken, Result<State, Error>),
    /// A lease was accepted.
    Accepted(LeaseToken, Result<(), Error>),
}

impl Session {
    /// Greets the worker, once it is known what has become of the leases that it holds.
    async fn begin(
        engine: Engine,
        refusals: Refusals,
        requests: Streaming<proto::WorkRequest>,
        hello: work_request::Hello,
    ) -> Result<Self, Status> {
        let (worker, tokens) = report::hello(hello).map_err(status::invalid)?;
        tracing::debug!(worker = worker.name, leases = tokens.len(), "a worker has come");
        let terms = engine.lease_terms(worker.term);
        let mut session = Self {
            place: engine.enlist(&worker),
            refusals,
            requests,
            heard_all: false,
            sent: 0,
            free: 0,
            draining: false,
            sent_away: false,
            closing: false,
            deaf: false,
            outbox: VecDeque::new(),
            held: HashMap::new(),
            orders: FuturesUnordered::new(),
            reports: FuturesUnordered::new(),
            stopping: engine.stopping(),
            silence: Box::pin(tokio::time::sleep(2 * terms.heartbeat_interval)),
            heard: Instant::now(),
            terms,
            engine,
        };
        // Before they are renewed, so that nothing falls in between.
        tokens.iter().for_each(|token| session.follow(*token));
        let renewed = reports::renew_bare(&session.engine, tokens).await.into_iter();
        let directives: Result<Vec<_>, Error> =
            renewed.map(|renewed| renewed.directive(&session.engine)).collect();
        let directives = directives.map_err(|error| status::status(&error))?;
        let terms = Some(lease::terms(&terms));
        session.outbox.push_back(Answer::Welcome(work_response::Welcome { terms, directives }));
        Ok(session)
    }

    /// The next answer; none at the end.
    async fn next(&mut self) -> Option<Result<Answer, Status>> {
        loop {
            if let Some(answer) = self.outbox.pop_front() {
                return Some(Ok(answer));
            }
            if self.reports.is_empty() {
                if self.closing {
                    return Some(Err(status::status(&Error::stopping())));
                }
                if self.heard_all {
                    return None;
                }
            }
            let may_hear = !self.heard_all && !self.closing && self.reports.len() < REPORTS_MAX;
            tokio::select! {
                // What was heard comes first, so that nobody is silent who was only not listened to.
                biased;
                request = self.requests.message(), if may_hear => match request {
                    Ok(Some(request)) => {
                        if let Err(status) = self.take(request) {
                            return Some(Err(status));
                        }
                    }
                    Ok(None) => {
                        self.heard_all = true;
                        self.offer();
                    }
                    Err(status) => return Some(Err(status)),
                },
                Some(reported) = self.reports.next() => self.answer(reported),
                Some((token, orders)) = self.orders.next() => self.direct(token, orders),
                // One at a time, and last: what was reported is not to wait behind many jobs.
                leased = self.place.next() => match leased {
                    Ok(leased) => self.assign(leased),
                    Err(error) => return Some(Err(status::status(&error))),
                },
                stopping = self.stopping.next() => self.stop(stopping),
                () = &mut self.silence => if let Some(end) = self.miss() {
                    return Some(Err(end));
                },
            }
        }
    }

    /// Takes a request. An error ends the stream: the worker speaks another language.
    fn take(&mut self, request: proto::WorkRequest) -> Result<(), Status> {
        self.heard = Instant::now();
        if std::mem::take(&mut self.deaf) {
            self.offer();
        }
        let engine = self.engine.clone();
        match request.message {
            None => return Err(invalid("message", "it is empty, or of a kind that is not known")),
            Some(Message::Hello(_)) => return Err(invalid("message", "hello comes once, and first")),
            Some(Message::Credit(credit)) => {
                self.free = report::credit(credit, self.sent).map_err(status::invalid)?;
                self.offer();
            }
            Some(Message::Drain(_)) => {
                self.draining = true;
                self.offer();
            }
            Some(Message::Accept(accept)) => {
                let token = report::token(&accept.lease_token, "accept.lease_token");
                let token = token.map_err(status::invalid)?;
                self.reports
                    .push(Box::pin(async move { Reported::Accepted(token, engine.accept(&token).await) }));
            }
            Some(Message::Heartbeat(heartbeat)) => {
                let renewed = reports::renew(&engine, report::heartbeat(heartbeat).map_err(status::invalid)?);
                self.reports.push(Box::pin(async move { Reported::Renewed(renewed.await) }));
            }
            Some(Message::Complete(complete)) => {
                let lease_token = complete.lease_token.clone();
                self.end(lease_token, report::completion(complete).map(Ending::Completed));
            }
            Some(Message::Fail(fail)) => {
                let lease_token = fail.lease_token.clone();
                self.end(lease_token, report::failed(fail).map(Ending::Failed));
            }
            Some(Message::Release(release)) => {
                let lease_token = release.lease_token.clone();
                self.end(lease_token, report::release(release).map(Ending::Released));
            }
        }
        Ok(())
    }

    /// Lets an attempt end. That its lease has ended is told by the answer to that, all else as it happens.
    fn end(&mut self, lease_token: String, ending: Result<Ending, report::Violations>) {
        let ending = match ending {
            Ok(ending) => ending,
            Err(violations) => {
                let message = status::invalid(violations).message().to_owned();
                return self.acknowledge(work_response::Ack {
                    lease_token,
                    refusal: status::INVALID_REQUEST.to_owned(),
                    message,
                    ..Default::default()
                });
            }
        };
        let (token, engine) = (ending.token(), self.engine.clone());
        if let Some(endings) = self.held.get_mut(&token) {
            *endings += 1;
        }
        self.reports.push(Box::pin(async move { Reported::Ended(token, ending.record(&engine).await) }));
    }

    fn acknowledge(&mut self, ack: work_response::Ack) {
        if !ack.refusal.is_empty() {
            self.refusals.tell(&ack.refusal);
        }
        self.outbox.push_back(Answer::Ack(ack));
    }

    fn answer(&mut self, reported: Reported) {
        match reported {
            Reported::Renewed(renewed) => {
                // What is not known is asked again with the next one.
                let directives =
                    renewed.into_iter().filter_map(|one| one.directive(&self.engine).ok()).collect();
                self.outbox.push_back(Answer::Directives(proto::HeartbeatResponse { directives }));
            }
            Reported::Accepted(_, Ok(())) => {}
            Reported::Accepted(token, Err(error)) => {
                if !error.is_transient() && self.held.remove(&token).is_some() {
                    self.tell(lease::lost(&token));
                }
            }
            Reported::Ended(token, Ok(state)) => {
                self.held.remove(&token);
                let lease_token = token.to_string();
                self.acknowledge(work_response::Ack {
                    lease_token,
                    state: reply::state(state).into(),
                    ..Default::default()
                });
            }
            Reported::Ended(token, Err(error)) => {
                let (refusal, message) = status::refusal(&error);
                let lease_token = token.to_string();
                self.acknowledge(work_response::Ack { lease_token, refusal, message, ..Default::default() });
                self.go_on(token);
            }
        }
    }

    /// A report that was to end an attempt was refused: the worker hears what it is to do now, unless it is to go on.
    fn go_on(&mut self, token: LeaseToken) {
        let Some(endings) = self.held.get_mut(&token) else { return };
        *endings = endings.saturating_sub(1);
        let ends = *endings > 0;
        match self.engine.directive(&token).map(|directive| directive.order) {
            Ok(Order::Continue) => {}
            Ok(order @ Order::Cancel { .. }) => self.tell(lease::order(&token, order)),
            // Another report is still to be answered, which tells as much.
            Ok(Order::Lost) | Err(_) if ends => {}
            Ok(Order::Lost) | Err(_) => {
                self.held.remove(&token);
                self.tell(lease::lost(&token));
            }
        }
    }

    fn assign(&mut self, leased: Leased) {
        if self.draining {
            self.place.give_up(vec![leased.token]);
            return;
        }
        self.sent += 1;
        self.free = self.free.saturating_sub(1);
        self.held.insert(leased.token, 0);
        self.listen(leased.token, leased.orders.clone());
        self.outbox.push_back(Answer::Assignment(lease::assignment(leased, self.engine.now())));
    }

    /// Tells the worker from now on what becomes of a lease.
    fn follow(&mut self, token: LeaseToken) {
        if let Some(orders) = self.engine.orders(&token)
            && self.held.insert(token, 0).is_none()
        {
            self.listen(token, orders);
        }
    }

    fn listen(&self, token: LeaseToken, mut orders: watch::Receiver<Order>) {
        self.orders.push(Box::pin(async move {
            // Where nobody gives orders any more, the last one stands.
            let _ = orders.changed().await;
            (token, orders)
        }));
    }

    fn direct(&mut self, token: LeaseToken, mut orders: watch::Receiver<Order>) {
        let order = *orders.borrow_and_update();
        match (order, self.held.get(&token)) {
            (_, None) => {}
            (Order::Lost, Some(0)) => {
                self.held.remove(&token);
                self.tell(lease::lost(&token));
            }
            // It may well be lost to the report itself: its answer tells.
            (Order::Lost, Some(_)) => {}
            (Order::Continue | Order::Cancel { .. }, Some(_)) => {
                self.listen(token, orders);
                self.tell(lease::order(&token, order));
            }
        }
    }

    fn tell(&mut self, directive: proto::Directive) {
        let directives = vec![directive];
        self.outbox.push_back(Answer::Directives(proto::HeartbeatResponse { directives }));
    }

    /// Offers as many slots as the worker has free, unless it is not to have more.
    fn offer(&self) {
        let closed = self.draining || self.deaf || self.heard_all;
        self.place.offer(if closed { 0 } else { self.free });
    }

    /// The server is about to stop, or stops: what was reported is still answered.
    fn stop(&mut self, stopping: Stopping) {
        let time = match stopping {
            Stopping::No => return,
            Stopping::Draining(time) => time,
            Stopping::Closing => Duration::ZERO,
        };
        self.closing = stopping == Stopping::Closing;
        self.draining = true;
        self.offer();
        if !std::mem::replace(&mut self.sent_away, true) {
            let grace = Some(reply::duration(time));
            self.outbox.push_back(Answer::GoAway(work_response::GoAway { grace }));
        }
    }

    /// The worker may have been silent for too long. It gets nothing that it would not take; and one that says nothing for
    /// a whole lease is gone.
    fn miss(&mut self) -> Option<Status> {
        let patience = 2 * self.terms.heartbeat_interval;
        let silent = self.heard.elapsed();
        if silent >= self.terms.lease_duration {
            return Some(Status::deadline_exceeded("the worker was silent for a whole lease"));
        }
        let next = if silent < patience { patience } else { self.terms.lease_duration };
        self.silence.as_mut().reset(self.heard + next);
        if silent >= patience {
            self.deaf = true;
            self.offer();
        }
        None
    }
}

fn invalid(field: &str, description: &str) -> Status {
    status::invalid(vec![Violation::new(field, description)])
}
