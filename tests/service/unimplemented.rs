//! What is in the contract and not there yet says so.

use crate::support::*;
use longhaul::proto::*;
use tonic::Code;

#[tokio::test]
async fn a_method_that_is_not_there_yet_is_unimplemented() {
    let server = Server::start().await;
    let mut client = server.client().await;

    let filter = Some(JobFilter { kinds: vec!["work".to_owned()], ..Default::default() });
    let refusals = [
        refused(client.batch_start_jobs(BatchStartJobsRequest::default())).await,
        refused(client.watch_jobs(WatchJobsRequest::default())).await,
        refused(client.retry_job(RetryJobRequest::default())).await,
        refused(client.delete_job(DeleteJobRequest::default())).await,
        refused(client.list_jobs(ListJobsRequest { filter, ..Default::default() })).await,
    ];

    for (code, reason, _) in refusals {
        assert_eq!((code, reason.is_empty()), (Code::Unimplemented, false));
    }
}
