//! A worker whose connection, or whose server, is gone without a word.

use super::*;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to a server on which connections can become half open: they stay, and nothing comes out at their other end.
struct Line {
    address: SocketAddr,
    swallowed: watch::Sender<usize>,
}

impl Line {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, swallowed) = (listener.local_addr().unwrap(), watch::Sender::new(0));
        let swallows = swallowed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let round = *swallows.borrow();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                    let swallows = swallows.subscribe();
                    tokio::spawn(async move {
                        let mut buffer = vec![0; 64 << 10];
                        while let Ok(read @ 1..) = from.read(&mut buffer).await {
                            if *swallows.borrow() == round && to.write_all(&buffer[..read]).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            }
        });
        Self { address, swallowed }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the connections that there are become half open.
    fn swallow(&self) {
        self.swallowed.send_modify(|round| *round += 1);
    }
}

#[tokio::test]
async fn what_a_connection_swallows_arrives_over_another() {
    let server = without_slots().await;
    let line = Line::start(server.address()).await;
    let (handler, strings) = puppet();
    let _pool = worker_at(line.url(), Registry::default().with(KIND, handler));
    let mut client = server.client().await;
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    strings.output("before ").await;
    reach(&mut client, &job, State::Running).await;

    line.swallow();
    strings.pull(Act::Stage("Writing")).await.unwrap();
    strings.output("the last").await;
    strings.succeed("{}").await;
    let history = kept(&to_the_end(ok(client.watch_job(watch(&job, 0))).await).await);

    assert_eq!((last(&history).state(), text(&history).as_str()), (State::Succeeded, "before the last"));
    let is_stage = |event: &&JobEvent| matches!(&event.event, Some(job_event::Event::Stage(_)));
    assert_eq!(history.iter().filter(is_stage).count(), 1);
    assert_eq!(ok(client.get_status(get(&job))).await.attempt, 1);
}

#[tokio::test]
async fn a_worker_whose_server_has_gone_stops_all_the_same() {
    let (mut server, pool, strings) = elsewhere().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    reach(&mut client, &job, State::Running).await;
    let hangs = strings.pull(Act::Hang);

    let stops = async {
        server.stop().await;
        within(pool.drain(Duration::ZERO)).await;
    };
    let _ = tokio::join!(hangs, stops);
}
