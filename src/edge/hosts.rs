//! The names under which this server may be called.
//!
//! Without them any web page could reach a visitor's own server, by a name of its own that it lets point to 127.0.0.1.

use std::net::IpAddr;

/// The names under which this server may be called.
pub(super) struct Hosts {
    names: Vec<String>,
    any_address: bool,
}

impl Hosts {
    /// Allows the loopback names, the address that is listened on, and those of the setting.
    pub(super) fn new(listen: IpAddr, allowed: &[String]) -> Self {
        let usual = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned);
        let listen = match listen {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let any_address = ["0.0.0.0", "[::]"].contains(&listen.as_str());
        Self {
            names: usual.into_iter().chain([listen]).chain(allowed.iter().cloned()).collect(),
            any_address,
        }
    }

    /// Whether this is one of them.
    pub(super) fn allow(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
            || host.trim_start_matches('[').trim_end_matches(']').parse().is_ok_and(|address: IpAddr| {
                // Listening on every address, each is ours; and only a name can be made to point here.
                address.is_loopback() || self.any_address
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_server_are_answered() {
        let hosts = Hosts::new("10.1.2.3".parse().unwrap(), &["jobs.example.org".into()]);

        for host in
            ["localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "[::1]", "10.1.2.3", "Jobs.example.org"]
        {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "127.0.0.1.nip.io", "10.1.2.4", "[::2]"] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn a_server_on_every_address_answers_to_each_but_to_no_strange_name() {
        let hosts = Hosts::new("0.0.0.0".parse().unwrap(), &[]);

        assert!(hosts.allow("192.168.1.7"));
        assert!(hosts.allow("[2001:db8::1]"));
        assert!(!hosts.allow("evil.example"));
    }
}
