//! Watchers that come, read, stall and go while a job lives, in any order, over a store that fails now and then: each of
//! them sees exactly what the history says.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::{Chance, SharedEvent, Watch};
use longhaul::job::*;
use rstest::rstest;
use std::sync::Arc;
use std::time::Duration;

/// A watcher, where it began, and what it has seen.
struct Reader {
    watch: Watch,
    after: Sequence,
    seen: Vec<Arc<SharedEvent>>,
}

/// The life of a job as the seed has it.
async fn one_life(seed: u64, kept_in: Kept) {
    let chance: Chance = chance(seed);
    let any_of = |n: u64| (chance() >> 20) % n;
    let bench = Bench::on(kept_in).await;
    let mut token = bench.run().await.token;
    let mut readers: Vec<Reader> = Vec::new();
    let mut lines = 0;

    for _ in 0..60 {
        match any_of(9) {
            0 => bench.write(&token, format!("{} ", any_of(1_000))).await,
            1 => {
                let count = any_of(100);
                let many = (0..count).flat_map(|_| line("many")).collect();
                within(bench.engine.append_log(&token, lines, many)).await.unwrap();
                lines += count;
            }
            2 => bench.engine.report(&token, progress(0.5), Metrics::new()).unwrap(),
            3 => bench.pass(Duration::from_millis(20 + any_of(100))).await,
            4 => {
                let after = any_of(bench.get(token.job).await.job.sequence() + 1);
                let watch = bench.watch(token.job, Some(after)).await;
                readers.push(Reader { watch, after, seen: Vec::new() });
            }
            5 if any_of(3) == 0 => {
                within(bench.engine.release(&token, "busy".into(), Duration::ZERO)).await.unwrap();
                (token, lines) = (bench.lease().await.token, 0);
            }
            6 if any_of(3) == 0 => {
                let fault = if any_of(2) == 0 { Fault::Unavailable } else { Fault::Unknown };
                bench.store.fail(appends, fault);
                bench.write(&token, "through trouble").await;
                // The window, then the wait before it is tried again.
                bench.pass(SECOND).await;
                assert!(bench.store.has_failed(), "seed {seed}");
            }
            _ => {
                for reader in &mut readers {
                    if any_of(2) == 0 {
                        reader.seen.extend(drain(&mut reader.watch).await);
                    }
                }
            }
        }
    }
    bench.complete(&token).await;

    let history = bench.history(token.job).await;
    let numbers: Vec<Sequence> = history.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=history.len() as u64).collect::<Vec<_>>());
    for mut reader in readers {
        reader.seen.extend(to_the_end(reader.watch).await);
        assert_eq!(
            kept(&reader.seen),
            history[reader.after as usize..],
            "seed {seed}, after {}",
            reader.after
        );
        assert!(reader.seen.is_sorted_by_key(|event| event.sequence), "seed {seed}");
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn every_watcher_sees_what_the_history_says(#[values(Kept::Memory, Kept::Sqlite)] kept_in: Kept) {
    let seeds = match std::env::var("LONGHAUL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=12).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("LONGHAUL_SEED={seed}");
        one_life(seed, kept_in).await;
    }
}
