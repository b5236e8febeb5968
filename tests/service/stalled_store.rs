//! A server whose store can be held up, so that a test decides what happens while a commit is under way.

use crate::hostile::HostileStore;
use crate::support::within;
use longhaul::clock::SystemClock;
use longhaul::engine::{Engine, Settings};
use longhaul::job::Keeper;
use longhaul::metrics::Metrics;
use longhaul::store::MemoryStore;
use longhaul::wire::refusals::Refusals;
use longhaul::{api, edge, http, rpc};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

pub struct StalledServer {
    pub engine: Engine,
    pub store: Arc<HostileStore>,
    address: SocketAddr,
}

impl StalledServer {
    pub async fn start() -> Self {
        let store = Arc::new(HostileStore::new(Arc::new(MemoryStore::new(1_000_000, Keeper(1)))));
        let clock = Arc::new(SystemClock::new());
        let chance = Arc::new(rand::random);
        let kept = Arc::clone(&store);
        let engine = Engine::start_up(kept, clock, Settings::default(), chance).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = api::Jobs::new(engine.clone());
        let services = rpc::Services::new()
            .service(rpc::Jobs::service(api.clone()))
            .service(rpc::Workers::service(engine.clone(), Default::default()));
        let http = http::Http {
            api,
            scrapes: http::Scrapes::new(engine.clone(), Arc::new(Metrics::new(engine.now(), &[], 0, &[]))),
            refusals: Refusals::default(),
            ai_kind: "simulate".into(),
            token: http::Token::new([1, 2]),
            overviews: http::Overviews::new(engine.clone(), Arc::default(), engine.now()),
        };
        let service = services.beside(http);
        tokio::spawn(edge::serve(
            listener,
            edge::Options::default(),
            service,
            |_| {},
            |_| {},
            std::future::pending(),
        ));
        Self { engine, store, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until a commit is held up.
    pub async fn held_up(&self) {
        let store = Arc::clone(&self.store);
        within(tokio::task::spawn_blocking(move || store.wait_for_blocked())).await.unwrap();
    }
}
