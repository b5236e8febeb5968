//! An extractive summary of a text: its most central sentences, in their order, by LexRank.
//!
//! Real work with nothing installed. It writes no sentence of its own and knows no language; what a sentence and a word is,
//! is told by Unicode.

mod lexrank;
mod sentences;

use crate::job::{Failure, Progress, reason};
use crate::worker::{Context, Handler, invalid_input};
use async_trait::async_trait;
use bytes::Bytes;
use lexrank::Graph;
use serde::Deserialize;
use serde_json::json;

/// The kind that it runs.
pub const KIND: &str = "summarize";

/// The longest summary, in sentences; more is no summary.
const SENTENCES_MAX: i64 = 100;
/// How many sentences are read in one go, before others have their turn.
const PORTION: usize = 32;

/// Runs jobs of the kind [`KIND`].
#[derive(Clone, Copy, Debug)]
pub struct Summarize;

/// The input. A field of another name is an error, since it is surely a slip.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    text: String,
    #[serde(default = "three")]
    sentences: i64,
}

fn three() -> i64 {
    3
}

impl Input {
    fn check(&self) -> Result<(), Failure> {
        if self.text.trim().is_empty() {
            return Err(invalid_input("text is empty; there is nothing to summarize"));
        }
        if !(1..=SENTENCES_MAX).contains(&self.sentences) {
            let text = format!("sentences is {}; it must be from 1 to {SENTENCES_MAX}", self.sentences);
            return Err(invalid_input(text));
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for Summarize {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let input: Input = context.parse_input()?;
        input.check()?;
        tokio::select! {
            result = summarize(context, &input) => result,
            () = context.cancelled().cancelled() => Err(Failure::new(reason::HANDLER_ERROR, "stopped as asked")),
        }
    }
}

async fn summarize(context: &Context, input: &Input) -> Result<Bytes, Failure> {
    let sentences = sentences::split(&input.text);
    let total = sentences.len();
    if total == 0 {
        return Err(invalid_input("text has no word; there is nothing to summarize"));
    }
    // Each sentence counts twice: once it is read, and once it is scored.
    let report = |stage: &str, read: usize, scored: usize| {
        context.progress(Progress {
            fraction: Some((read + scored) as f64 / (2 * total) as f64),
            stage: stage.to_owned(),
            completed: (if scored > 0 { scored } else { read }) as i64,
            total: Some(total as i64),
            unit: "sentences".to_owned(),
            ..Default::default()
        })
    };

    context.stage("Reading").await?;
    let mut graph = Graph::default();
    for (index, sentence) in sentences.iter().enumerate() {
        graph.add(sentences::words(sentence));
        if index % PORTION == PORTION - 1 {
            report("Reading", index + 1, 0)?;
            tokio::task::yield_now().await;
        }
    }
    report("Reading", total, 0)?;

    context.stage("Scoring").await?;
    let mut ranking = graph.rank();
    while ranking.step() {
        report("Scoring", total, (ranking.done() * total as f64) as usize)?;
        tokio::task::yield_now().await;
    }
    let scores = ranking.scores();
    report("Scoring", total, total)?;

    context.stage("Writing").await?;
    let chosen = lexrank::best(&scores, input.sentences as usize);
    let (mut summary, mut written) = (String::new(), Vec::with_capacity(chosen.len()));
    for (place, index) in chosen.into_iter().enumerate() {
        let text = sentences[index];
        let piece = format!("{}{text}", if place == 0 { "" } else { gap(&summary) });
        context.output(piece.clone()).await?;
        summary.push_str(&piece);
        written.push(json!({"text": text, "index": index, "score": scores[index]}));
    }
    let result = json!({
        "summary": summary,
        "sentences": written,
        "total_sentences": total,
        "method": "lexrank",
    });
    Ok(result.to_string().into())
}

/// What belongs between a text and its next sentence: nothing, where the writing has no spaces.
fn gap(text: &str) -> &'static str {
    let end = text.trim_end_matches(['”', '’', '」', '』', '）']);
    if end.ends_with(['。', '！', '？', '｡']) { "" } else { " " }
}

#[cfg(test)]
mod tests;
