//! A proxy that passes bytes on, and holds those that clients send for as long as it is told to.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    address: SocketAddr,
    holding: watch::Sender<bool>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, holding) = (listener.local_addr().unwrap(), watch::Sender::new(false));
        let held = holding.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                server.set_nodelay(true).unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let mut held = held.subscribe();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                        if held.wait_for(|holding| !holding).await.is_err()
                            || to_server.write_all(&buffer[..read]).await.is_err()
                        {
                            break;
                        }
                    }
                });
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            }
        });
        Self { address, holding }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds what clients send from now on.
    pub fn hold(&self) {
        self.holding.send_replace(true);
    }

    /// Passes on what was held, and all that comes.
    pub fn let_go(&self) {
        self.holding.send_replace(false);
    }
}
