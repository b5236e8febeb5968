//! What workers call: convert, ask the engine, convert back. The streams are in `work` and `emit`.

use super::reports::{self, Ending};
use super::{emit, room, work};
use crate::engine::{Engine, Error, Leased, Place};
use crate::job::State;
use crate::proto;
use crate::proto::worker_service_server::{WorkerService, WorkerServiceServer};
use crate::wire::refusals::Refusals;
use crate::wire::{lease, reply, report, status};
use prost::Message as _;
use tonic::codec::CompressionEncoding;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// The largest message that is taken: a result of the largest size, and all that may stand beside it.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Where an answer with jobs ends; one job is in it, however large.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The service over an engine.
#[derive(Clone, Debug)]
pub struct Workers {
    engine: Engine,
    refusals: Refusals,
}

impl Workers {
    /// The service as it is offered: with compression of what comes, and limits.
    /// What is refused on a stream, without an end of it, is told to `refusals`.
    pub fn service(engine: Engine, refusals: Refusals) -> WorkerServiceServer<Self> {
        WorkerServiceServer::new(Self { engine, refusals })
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type WorkStream = BoxStream<proto::WorkResponse>;
    type EmitStream = BoxStream<proto::AppendOutputResponse>;

    async fn lease_jobs(
        &self,
        request: Request<proto::LeaseJobsRequest>,
    ) -> Result<Response<proto::LeaseJobsResponse>, Status> {
        let wanted = report::wanted(request.into_inner()).map_err(status::invalid)?;
        let mut stopping = self.engine.stopping();
        let mut place = self.engine.enlist(&wanted.worker);
        place.offer(wanted.jobs);
        let looked = place.looked();
        let waited = async {
            looked.await?;
            tokio::time::sleep(wanted.wait).await;
            Ok::<_, Error>(None)
        };
        let first = tokio::select! {
            biased;
            leased = place.next() => leased.map(Some),
            _ = stopping.next() => Err(Error::stopping()),
            none = waited => none,
        };
        let assignments = self.assignments(&mut place, first.map_err(refused)?);
        let terms = lease::terms(&self.engine.lease_terms(wanted.worker.term));
        Ok(Response::new(proto::LeaseJobsResponse { assignments, terms: Some(terms) }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let _place = room::unpacked(&request)?;
        let renewals = report::heartbeat(request.into_inner()).map_err(status::invalid)?;
        let renewed = reports::renew(&self.engine, renewals).await.into_iter();
        let directives: Result<Vec<_>, Error> =
            renewed.map(|renewed| renewed.directive(&self.engine)).collect();
        Ok(Response::new(proto::HeartbeatResponse { directives: directives.map_err(refused)? }))
    }

    async fn append_output(
        &self,
        request: Request<proto::AppendOutputRequest>,
    ) -> Result<Response<proto::AppendOutputResponse>, Status> {
        let _place = room::unpacked(&request)?;
        let (token, frame) = report::frame(request.into_inner()).map_err(status::invalid)?;
        let channel = frame.channel.clone();
        let durable = self.engine.append_frame(&token, frame).await.map_err(refused)?;
        Ok(Response::new(reply::durable(&token, channel, durable)))
    }

    async fn complete_job(
        &self,
        request: Request<proto::CompleteJobRequest>,
    ) -> Result<Response<proto::CompleteJobResponse>, Status> {
        let _place = room::unpacked(&request)?;
        self.end(report::completion(request.into_inner()).map(Ending::Completed)).await?;
        Ok(Response::new(proto::CompleteJobResponse {}))
    }

    async fn fail_job(
        &self,
        request: Request<proto::FailJobRequest>,
    ) -> Result<Response<proto::FailJobResponse>, Status> {
        let _place = room::unpacked(&request)?;
        let state = self.end(report::failed(request.into_inner()).map(Ending::Failed)).await?;
        Ok(Response::new(proto::FailJobResponse { state: reply::state(state).into() }))
    }

    async fn release_job(
        &self,
        request: Request<proto::ReleaseJobRequest>,
    ) -> Result<Response<proto::ReleaseJobResponse>, Status> {
        self.end(report::release(request.into_inner()).map(Ending::Released)).await?;
        Ok(Response::new(proto::ReleaseJobResponse {}))
    }

    async fn work(
        &self,
        request: Request<Streaming<proto::WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        Ok(Response::new(Box::pin(work::responses(
            self.engine.clone(),
            self.refusals.clone(),
            request.into_inner(),
        ))))
    }

    async fn emit(
        &self,
        request: Request<Streaming<proto::AppendOutputRequest>>,
    ) -> Result<Response<Self::EmitStream>, Status> {
        Ok(Response::new(Box::pin(emit::responses(
            self.engine.clone(),
            self.refusals.clone(),
            request.into_inner(),
        ))))
    }
}

impl Workers {
    async fn end(&self, ending: Result<Ending, report::Violations>) -> Result<State, Status> {
        ending.map_err(status::invalid)?.record(&self.engine).await.map_err(refused)
    }

    /// The first job, and as many of those that have come with it as fit into an answer. The others are given back.
    fn assignments(&self, place: &mut Place, first: Option<Leased>) -> Vec<proto::Assignment> {
        // What came now would only be given back.
        place.offer(0);
        let now = self.engine.now();
        let mut assignments: Vec<proto::Assignment> = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while let Some(leased) = next {
            let token = leased.token;
            let assignment = lease::assignment(leased, now);
            bytes += assignment.encoded_len();
            if bytes > ANSWER_BYTES_MAX && !assignments.is_empty() {
                place.give_up(vec![token]);
                break;
            }
            assignments.push(assignment);
            next = place.more();
        }
        assignments
    }
}

fn refused(error: Error) -> Status {
    status::status(&error)
}
