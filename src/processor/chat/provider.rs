//! A server that answers: where it is, what it may be asked, and what it costs. All of it is the server's to say, and nothing a
//! client's.

use super::answer::Tokens;
use reqwest::header::HeaderValue;
use reqwest::redirect;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The key of an account. It is never shown.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// A key, where it is one that a header can have, and that JSON shows as it is: else it could not be taken out of that.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_shown = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let is_key = !text.is_empty() && text.bytes().all(is_shown);
        is_key.then(|| Self(text.to_owned()))
    }

    /// The text without the key in it.
    pub fn scrubbed(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }

    /// The header that shows it to its provider.
    fn header(&self) -> HeaderValue {
        let text = format!("Bearer {}", self.0);
        let mut header = HeaderValue::try_from(text).expect("a key is visible ASCII");
        header.set_sensitive(true);
        header
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

/// Dollars, or what else the accounts are in, for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Read.
    pub input: f64,
    /// Read from a cache; as `input` where it is missing.
    pub cached_input: Option<f64>,
    /// Written.
    pub output: f64,
}

impl Prices {
    /// What an answer costs.
    pub fn cost(&self, tokens: Tokens) -> f64 {
        let Tokens { input, cached, output } = tokens;
        let cached = cached.min(input);
        let read =
            (input - cached) as f64 * self.input + cached as f64 * self.cached_input.unwrap_or(self.input);
        (read + output as f64 * self.output) / 1e6
    }
}

/// What becomes of a job whose answer breaks off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBreak {
    /// It is asked again, and paid again.
    #[default]
    Retry,
    /// It fails.
    Fail,
}

/// A server that answers.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The kind of the jobs that it is asked for, which is its name as well.
    pub kind: String,
    /// Where it is, up to and without `/chat/completions`.
    pub url: String,
    /// The account's key.
    pub key: Option<Key>,
    /// What clients may ask for, the first of them where they do not say; none leaves the choice to the provider.
    pub models: Vec<String>,
    /// Fields that a client may replace.
    pub defaults: Map<String, Value>,
    /// Fields that it may not.
    pub extra: Map<String, Value>,
    /// Tokens of an answer, where a client does not say.
    pub max_tokens: Option<u64>,
    /// The most tokens that a client may ask for.
    pub max_tokens_limit: Option<u64>,
    /// What the provider calls the cap.
    pub max_tokens_field: String,
    /// Requests at once.
    pub max_concurrent: usize,
    /// How many of them one batch may have.
    pub batch_concurrent: usize,
    /// How long it may take to be reached.
    pub connect_timeout: Duration,
    /// How long it may take to begin to answer.
    pub first_token_timeout: Duration,
    /// How long it may be silent after that.
    pub idle_timeout: Duration,
    /// What becomes of a job whose answer breaks off.
    pub on_break: OnBreak,
    /// What an answer costs, by model.
    pub prices: BTreeMap<String, Prices>,
}

impl Provider {
    /// Fields that are ours to set.
    pub const OWN_FIELDS: [&str; 7] =
        ["messages", "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"];

    /// What asks it. It follows no redirect, which could take the key elsewhere, and heeds no proxy of the environment.
    pub fn client(&self) -> reqwest::Result<reqwest::Client> {
        // Where it is installed already, it is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(self.connect_timeout)
            .user_agent(concat!("longhaul/", env!("CARGO_PKG_VERSION")));
        match self.url.starts_with("https:") {
            true => client.build(),
            // No certificates are needed, and a machine may have none.
            false => client.tls_certs_only([]).build(),
        }
    }

    /// A request of it, without a body.
    pub fn request(&self, client: &reqwest::Client) -> reqwest::RequestBuilder {
        let request = client.post(format!("{}/chat/completions", self.url));
        match &self.key {
            Some(key) => request.header(reqwest::header::AUTHORIZATION, key.header()),
            None => request,
        }
    }

    /// What somebody else has said, without the key and no longer than that.
    pub fn quoted(&self, text: &str, bytes: usize) -> String {
        let mut text = self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.scrubbed(text));
        text.truncate(text.floor_char_boundary(bytes));
        text
    }
}
