//! What workers call: convert, ask the engine, convert back. The streams are in `work` and `emit`.

use super::{emit, work};
use crate::engine::{Engine, Error, Leased, Place, Stopping};
use crate::proto;
use crate::proto::worker_service_server::{WorkerService, WorkerServiceServer};
use crate::wire::{lease, reply, report, status};
use futures_util::future::join_all;
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
}

impl Workers {
    /// The service as it is offered: with compression of what comes, and limits.
    pub fn service(engine: Engine) -> WorkerServiceServer<Self> {
        WorkerServiceServer::new(Self { engine })
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
            Ok::<_, Error>(Vec::new())
        };
        let leased = tokio::select! {
            biased;
            leased = place.next() => leased,
            _ = stopping.wait_for(|stopping| *stopping != Stopping::No) => {
                Err(Error::Unavailable("the server is stopping".into()))
            }
            none = waited => none,
        };
        let assignments = self.assignments(&place, leased.map_err(refused)?);
        let terms = lease::terms(&self.engine.lease_terms(wanted.worker.term));
        Ok(Response::new(proto::LeaseJobsResponse { assignments, terms: Some(terms) }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let reports = report::reports(request.into_inner()).map_err(status::invalid)?;
        let renewals = reports.into_iter().map(|report| {
            let (token, renewed) = (report.token, self.engine.renew(report));
            async move {
                lease::directive(&token, renewed.await.and_then(|()| self.engine.directive(&token)))
            }
        });
        let directives: Result<Vec<_>, Error> = join_all(renewals).await.into_iter().collect();
        Ok(Response::new(proto::HeartbeatResponse { directives: directives.map_err(refused)? }))
    }

    async fn append_output(
        &self,
        request: Request<proto::AppendOutputRequest>,
    ) -> Result<Response<proto::AppendOutputResponse>, Status> {
        let (token, frame) = report::frame(request.into_inner()).map_err(status::invalid)?;
        let channel = frame.channel.clone();
        let durable = self.engine.append_frame(&token, frame).await.map_err(refused)?;
        Ok(Response::new(reply::durable(&token, channel, durable)))
    }

    async fn complete_job(
        &self,
        request: Request<proto::CompleteJobRequest>,
    ) -> Result<Response<proto::CompleteJobResponse>, Status> {
        let report::Completion { token, result, metrics, output_bytes } =
            report::completion(request.into_inner()).map_err(status::invalid)?;
        self.engine.complete(&token, result, metrics, output_bytes).await.map_err(refused)?;
        Ok(Response::new(proto::CompleteJobResponse {}))
    }

    async fn fail_job(
        &self,
        request: Request<proto::FailJobRequest>,
    ) -> Result<Response<proto::FailJobResponse>, Status> {
        let report::Failed { token, failure, retry_delay } =
            report::failed(request.into_inner()).map_err(status::invalid)?;
        let state = self.engine.fail(&token, failure, retry_delay).await.map_err(refused)?;
        Ok(Response::new(proto::FailJobResponse { state: reply::state(state).into() }))
    }

    async fn release_job(
        &self,
        request: Request<proto::ReleaseJobRequest>,
    ) -> Result<Response<proto::ReleaseJobResponse>, Status> {
        let report::Release { token, reason, delay } =
            report::release(request.into_inner()).map_err(status::invalid)?;
        self.engine.release(&token, reason, delay).await.map_err(refused)?;
        Ok(Response::new(proto::ReleaseJobResponse {}))
    }

    async fn work(
        &self,
        request: Request<Streaming<proto::WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        Ok(Response::new(Box::pin(work::responses(self.engine.clone(), request.into_inner()))))
    }

    async fn emit(
        &self,
        request: Request<Streaming<proto::AppendOutputRequest>>,
    ) -> Result<Response<Self::EmitStream>, Status> {
        Ok(Response::new(Box::pin(emit::responses(self.engine.clone(), request.into_inner()))))
    }
}

impl Workers {
    /// As many of these as fit into an answer; the others are given back.
    fn assignments(&self, place: &Place, leased: Vec<Leased>) -> Vec<proto::Assignment> {
        let now = self.engine.now();
        let mut assignments: Vec<proto::Assignment> = Vec::with_capacity(leased.len());
        let (mut bytes, mut left) = (0, Vec::new());
        for leased in leased {
            let token = leased.token;
            let assignment = lease::assignment(leased, now);
            bytes += assignment.encoded_len();
            match bytes <= ANSWER_BYTES_MAX || assignments.is_empty() {
                true => assignments.push(assignment),
                false => left.push(token),
            }
        }
        place.give_up(left);
        assignments
    }
}

fn refused(error: Error) -> Status {
    status::status(&error)
}
