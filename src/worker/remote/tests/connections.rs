//! Servers that are silent, do not greet, break off or do not read.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_left_for_another_with_both_streams() {
    let (mut far, source, job, work) = begun().await;
    let emit = written(&mut far, &source, &job, "lost").await;
    let began = Instant::now();

    let (next, hello) = far.greeted().await;
    let mut next_emit = far.emit().await;

    assert_eq!((work.connection, emit.connection), (1, 1));
    assert_eq!((next.connection, next_emit.connection), (2, 2));
    assert_eq!(hello.lease_tokens, [job.token.to_string()]);
    assert_eq!(next_emit.next().await.data, "lost");
    let waited = began.elapsed();
    assert!((2 * INTERVAL..4 * INTERVAL).contains(&waited), "{waited:?}");
    assert!(goes_on(&job.orders), "a break loses no lease");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_greet_is_asked_over_another_connection() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let mut leasing = pin!(source.lease(&wanted, 1));
    assert!(poll!(leasing.as_mut()).is_pending());
    let _silent = far.work().await;
    let began = Instant::now();

    let (next, _) = far.greeted().await;

    assert_eq!(next.connection, 2);
    assert!((10..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_greets_and_breaks_off_is_asked_less_and_less_often() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let mut leasing = pin!(source.lease(&wanted, 1));
    assert!(poll!(leasing.as_mut()).is_pending());

    let mut tries = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        far.greeted().await.0.break_off().await;
        tries += 1;
    }

    assert!((5..20).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_dropped_ends_its_streams() {
    let (mut far, source, job, mut work) = begun().await;
    let mut emit = written(&mut far, &source, &job, "text").await;

    drop(source);

    let to_the_end = async {
        while let Ok(Some(_)) = work.heard.message().await {}
        while let Ok(Some(_)) = emit.heard.message().await {}
    };
    patiently(to_the_end).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_server_that_does_not_read_does_not_grow() {
    let book = Book::new(Identity::default());
    let (_, _) = book.begin_work();

    for _ in 0..1_000 {
        book.beat();
        book.tell_changes();
    }
    book.drain();

    let mut waiting = 0;
    while let Poll::Ready(Some(_)) = poll!(pin!(book.next_message(1))) {
        waiting += 1;
    }
    assert_eq!(waiting, 2, "one heartbeat, and the word that it drains");
}

#[tokio::test(start_paused = true)]
async fn no_more_slots_are_told_than_a_server_takes() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let mut leasing = pin!(source.lease(&wanted, 20_000));
    assert!(poll!(leasing.as_mut()).is_pending());
    let (mut work, hello) = far.greeted().await;

    let credit = |message| match message {
        Message::Credit(credit) => Some(credit.free_slots),
        _ => None,
    };

    assert_eq!(work.until(credit).await, 10_000);
    assert_eq!(hello.kinds, ["work"]);
}
