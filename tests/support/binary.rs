//! The real binary as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// A command of the binary under test, with nothing of this environment's settings.
pub fn longhaul() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LONGHAUL_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Output {
    longhaul().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// `longhaul serve` in a process of its own, killed at the end of the test.
pub struct Process {
    child: Child,
    pub address: String,
}

impl Process {
    pub fn serve(data: &Path, listen: &str, more: &[&str]) -> Self {
        Self::spawn(longhaul().args(["serve", "--listen", listen, "--data-dir"]).arg(data).args(more))
    }

    /// Starts a command that serves, and waits until it does.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("longhaul listening on ").unwrap_or_else(|| panic!("said {line:?}"));
        Self { address: address.to_owned(), child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What it has written to standard error, where that was piped, until it ended.
    pub fn said(&mut self) -> String {
        std::io::read_to_string(self.child.stderr.take().expect("it is piped")).unwrap()
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
