//! Once all is calm, nothing that happens waits for a look that only makes up for a lost hint.

use crate::client::{Called, Client};
use crate::ledger::Ledger;
use crate::machine::Machine;
use longhaul::proto::job::State;
use longhaul::proto::job_event::Event;
use longhaul::proto::start_job_request::Payload;
use longhaul::proto::*;
use std::time::Duration;
use tokio::time::Instant;

/// Workers look by themselves after five seconds, watchers after one: a hint takes far less.
const PROMPT: Duration = Duration::from_millis(600);
/// How many events of a watched job are at hand at most.
const AT_HAND_MAX: usize = 64;

/// Starts jobs one after the other, beside idle workers, and watches each.
pub async fn check(client: &Client, machine: &Machine, ledger: &Ledger) {
    // Whoever was silent is heard again.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for number in 0..3 {
        let label = format!("prompt.{number}");
        ledger.wish(&label, "", None);
        let request = StartJobRequest {
            // Of those who keep to the rules.
            kind: "prompt".to_owned(),
            payload: Some(Payload::InputJson("{}".to_owned())),
            request_id: label.clone(),
            labels: [("wish".to_owned(), label.clone())].into(),
            ..Default::default()
        };
        let began = Instant::now();
        let Called::Is(job) = client.call(client.stub.clone().start_job(request)).await else {
            return ledger.blame("a job cannot be started though all is calm".into());
        };
        ledger.started(&label, &job);
        watch(client, machine, ledger, &job.id, began).await;
    }
    cancel(client, ledger).await;
}

/// A job that is at work and listens ends as soon as it is cancelled.
async fn cancel(client: &Client, ledger: &Ledger) {
    ledger.wish("prompt.cancel", "", None);
    let request = StartJobRequest {
        kind: "waits".to_owned(),
        payload: Some(Payload::InputJson("{}".to_owned())),
        labels: [("wish".to_owned(), "prompt.cancel".to_owned())].into(),
        ..Default::default()
    };
    let Called::Is(job) = client.call(client.stub.clone().start_job(request)).await else {
        return ledger.blame("a job cannot be started though all is calm".into());
    };
    ledger.started("prompt.cancel", &job);
    let request = WatchJobRequest { job_id: job.id.clone(), after_sequence: Some(0), ..Default::default() };
    let Called::Is(mut stream) = client.call(client.stub.clone().watch_job(request)).await else {
        return ledger.blame("a job cannot be watched though all is calm".into());
    };
    let mut asked = None;
    while let Ok(Some(event)) = stream.message().await {
        let Some(Event::StateChange(change)) = &event.event else { continue };
        match (change.state(), asked) {
            (State::Running, _) => {
                asked = Some(Instant::now());
                let request = CancelJobRequest { job_id: job.id.clone(), ..Default::default() };
                let cancelled = client.call(client.stub.clone().cancel_job(request)).await;
                ledger.demand(matches!(cancelled, Called::Is(_)), || "a job cannot be cancelled".into());
            }
            (State::Cancelled, Some(asked)) => {
                let waited = asked.elapsed();
                return ledger.demand(waited < PROMPT, || format!("{} was cancelled for {waited:?}", job.id));
            }
            _ => {}
        }
    }
    ledger.blame(format!("{} was cancelled, and its watch does not say so", job.id));
}

async fn watch(client: &Client, machine: &Machine, ledger: &Ledger, job: &str, began: Instant) {
    let request = WatchJobRequest { job_id: job.to_owned(), after_sequence: Some(0), ..Default::default() };
    let Called::Is(mut stream) = client.call(client.stub.clone().watch_job(request)).await else {
        return ledger.blame("a job cannot be watched though all is calm".into());
    };
    let mut waits = true;
    let end = loop {
        let event = match stream.message().await {
            Ok(Some(event)) => event,
            end => break end,
        };
        let Some(process) = machine.process.lock().clone() else { continue };
        let figures = process.engine.figures();
        ledger.demand(figures.events_at_hand <= figures.watches * AT_HAND_MAX, || {
            format!("{} events are at hand for {} watches", figures.events_at_hand, figures.watches)
        });
        let is_kept = !matches!(
            event.event,
            Some(
                Event::Snapshot(_)
                    | Event::Progress(_)
                    | Event::Metrics(_)
                    | Event::Keepalive(_)
                    | Event::QueueUpdate(_)
            )
        );
        let late = longhaul::clock::Clock::now(process.clock.as_ref()).as_micros() - micros(&event);
        ledger.demand(!is_kept || late < PROMPT.as_micros() as i64, || {
            format!("event {} of {job} is shown {late} us late", event.sequence)
        });
        if let Some(Event::StateChange(change)) = &event.event
            && change.state() == State::Running
            && std::mem::take(&mut waits)
        {
            let waited = began.elapsed();
            ledger.demand(waited < PROMPT, || format!("{job} waited {waited:?} beside idle workers"));
        }
    };
    ledger.demand(matches!(end, Ok(None)) && !waits, || format!("a watch of {job} ends with {end:?}"));
}

fn micros(event: &JobEvent) -> i64 {
    event.event_time.map_or(0, |time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000)
}
