//! What a job that is to be done again has left for the one that does it: read beforehand, since it may lie anywhere in a long
//! history, and nobody who commits should wait for that.

use super::{Engine, Error, EventLimit};
use crate::job::limits::RESUMED_BYTES_MAX;
use crate::job::{Body, JobId};
use crate::store::Parts;
use bytes::Bytes;

/// How much history is read at once.
const READ: EventLimit = EventLimit { events: 1_000, bytes: 1 << 20 };

impl Engine {
    /// The main output that a job's checkpoint keeps, where the job has ended with one, and that is not too much to be taken over.
    pub(super) async fn resumable(&self, tenant: &str, job: JobId) -> Result<Option<Bytes>, Error> {
        // What cannot be read is the commit's to refuse: it may know the request.
        let found =
            self.shared().store.get(&[job], Parts::BASIC).ok().and_then(|mut found| found.pop().flatten());
        let found = found.filter(|one| one.job.tenant == tenant && one.job.state.is_final());
        let Some(kept) = found.and_then(|one| one.job.checkpoint()).filter(|kept| *kept <= RESUMED_BYTES_MAX)
        else {
            return Ok(None);
        };
        if kept == 0 {
            return Ok(Some(Bytes::new()));
        }
        let (mut valid, mut after) = (Vec::new(), 0);
        loop {
            let events = self.read(move |store| store.events(&[(job, after)], READ)).await?.remove(0);
            let Some(last) = events.last() else { break };
            after = last.sequence;
            for event in events {
                match event.body {
                    // What lies behind the part that is kept need not be held; a reset only ever cuts.
                    Body::OutputAppended { channel, offset, data } if channel.is_empty() => {
                        let end = kept.saturating_sub(offset).min(data.len() as u64) as usize;
                        valid.extend_from_slice(&data[..end]);
                    }
                    Body::OutputReset { channel, kept_bytes } if channel.is_empty() => {
                        valid.truncate(kept_bytes as usize);
                    }
                    _ => {}
                }
            }
        }
        Ok(Some(valid.into()))
    }
}
