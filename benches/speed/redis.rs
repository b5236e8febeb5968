//! A Redis beside it all, where the machine has one: the same load against a store that many know.

use anyhow::ensure;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to open its port.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Redis that flushes every write, and ends with this value.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    pub address: SocketAddr,
}

impl Redis {
    /// Starts it with its files in this folder; nothing where there is no `redis-server`.
    pub fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]).arg(folder);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        let Ok(child) = command.stdout(Stdio::null()).spawn() else { return Ok(None) };
        let redis = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < PATIENCE, "redis-server did not open its port");
            std::thread::yield_now();
        }
        Ok(Some(redis))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
