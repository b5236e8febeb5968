use super::*;
use futures_util::FutureExt;
use http_body_util::{BodyExt, StreamBody};
use std::convert::Infallible;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Pieces = StreamBody<Pin<Box<dyn tokio_stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// A call's body, what it is sent by, and what the call holds until it is answered.
fn call() -> (Sent<Pieces>, UnboundedSender<Vec<u8>>, Arc<Mutex<Place>>) {
    let (sender, receiver) = unbounded_channel::<Vec<u8>>();
    let frames = UnboundedReceiverStream::new(receiver).map(|data| Ok(Frame::data(Bytes::from(data))));
    let place = Arc::new(Mutex::new(Place::default()));
    let body = StreamBody::new(Box::pin(frames) as Pin<Box<_>>);
    let sent = Sent { body, kept: 0, message: Message::default(), place: Arc::clone(&place), timer: None };
    (sent, sender, place)
}

fn message(bytes: usize) -> Vec<u8> {
    let mut message = vec![0; PREFIX_BYTES + bytes];
    message[1..PREFIX_BYTES].copy_from_slice(&(bytes as u32).to_be_bytes());
    message
}

#[test]
fn messages_are_told_apart_however_they_are_cut() {
    let text = [message(0), message(7), message(300), message(1)].concat();
    for cut in 1..=text.len() {
        let mut passing = Message::default();
        let mut whole = 0;
        let ends = [5, 17, 322, 328];
        for (n, byte) in text.chunks(cut).enumerate() {
            passing.pass(byte);
            let passed = (n * cut) + byte.len();
            whole = ends.iter().copied().filter(|end| *end <= passed).max().unwrap_or(whole);
            assert_eq!(passing.seen, passed - whole, "{passed} bytes, cut into {cut}");
        }
    }
}

#[tokio::test]
async fn a_call_keeps_all_of_its_message_until_it_is_answered() {
    let (mut sent, sender, _unanswered) = call();

    sender.send(message(100 << 10)).unwrap();
    sent.frame().await.unwrap().unwrap();
    drop(sender);
    assert!(sent.frame().await.is_none());

    assert_eq!(sent.kept, PREFIX_BYTES + (100 << 10));
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_back_what_was_taken_and_has_time_for_each_message() {
    let (mut sent, sender, unanswered) = call();
    drop(unanswered);

    let large = message(60 << 10);
    let (begin, end) = large.split_at(30 << 10);
    sender.send(begin.to_vec()).unwrap();
    sent.frame().await.unwrap().unwrap();
    for _ in 0..3 {
        tokio::time::advance(MESSAGE_TIME_MAX - Duration::from_secs(1)).await;
        // The end of one and the begin of the next come together.
        sender.send([end, begin].concat()).unwrap();
        sent.frame().await.unwrap().unwrap();
        assert!(sent.frame().now_or_never().is_none());
        assert!(sent.timer.is_some());
        assert_eq!(sent.kept, begin.len());
    }

    sender.send(end.to_vec()).unwrap();
    sent.frame().await.unwrap().unwrap();
    assert!(sent.frame().now_or_never().is_none());
    assert!(sent.timer.is_none());
    assert_eq!(sent.kept, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_small_may_take_as_long_as_it_likes_and_what_is_large_may_not() {
    let (mut small, sender, _unanswered) = call();
    sender.send(message(FREE_BYTES)[..FREE_BYTES].to_vec()).unwrap();
    small.frame().await.unwrap().unwrap();
    let waited = tokio::time::timeout(2 * MESSAGE_TIME_MAX, small.frame()).await;
    assert!(waited.is_err(), "nothing has come");

    sender.send(vec![0; 1]).unwrap();
    small.frame().await.unwrap().unwrap();
    let error = small.frame().await.unwrap().unwrap_err();

    assert_eq!(Status::from_error(error).code(), tonic::Code::DeadlineExceeded);
}
