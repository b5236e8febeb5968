//! How a provider of answers is named, by flag, by variable or in the server's settings file.

use super::times::Time;
use crate::processor::chat::{Key, OnBreak, Prices, Provider};
use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// The variables that clients of such providers know, and what they know the key by.
const BASE_URL: &str = "OPENAI_BASE_URL";
const API_KEY: &str = "OPENAI_API_KEY";
/// Requests at once, where nobody says: what a small server of one's own can do.
const MAX_CONCURRENT: usize = 4;
/// More than any provider allows an account.
const MAX_CONCURRENT_MAX: usize = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A large model may have to be loaded, and a long prompt to be read.
const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(300);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A provider, as it is named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatOptions {
    /// Where it is, up to and without `/chat/completions`.
    pub url: String,
    /// The name of the variable that has the account's key.
    pub key_env: Option<String>,
    /// What clients may ask for, the first of them where they do not say.
    #[serde(default)]
    pub models: Vec<String>,
    /// Fields of the request that a client may replace.
    #[serde(default)]
    pub defaults: Map<String, Value>,
    /// Fields of the request that it may not.
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// Tokens of an answer, where a client does not say.
    pub max_tokens: Option<u64>,
    /// The most tokens that a client may ask for.
    pub max_tokens_limit: Option<u64>,
    /// What the provider calls them: `max_tokens` or `max_completion_tokens`.
    pub max_tokens_field: Option<String>,
    /// Requests at once.
    pub max_concurrent: Option<usize>,
    /// How many of them one batch may have.
    pub batch_concurrent: Option<usize>,
    /// How long it may take to be reached.
    pub connect_timeout: Option<Time>,
    /// How long it may take to begin to answer.
    pub first_token_timeout: Option<Time>,
    /// How long it may be silent after that.
    pub idle_timeout: Option<Time>,
    /// What becomes of a job whose answer breaks off.
    #[serde(default)]
    pub on_break: OnBreak,
    /// What an answer costs, by model.
    #[serde(default)]
    pub prices: BTreeMap<String, Prices>,
}

impl ChatOptions {
    /// The provider that flags and variables name, where they do.
    pub fn of_flags(
        url: Option<String>,
        models: Option<Vec<String>>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let given = |text: &String| !text.trim().is_empty();
        let url = url.filter(given).or_else(|| variable(BASE_URL).filter(given))?;
        let key_env = variable(API_KEY).filter(given).map(|_| API_KEY.to_owned());
        Some(Self { url, key_env, models: models.unwrap_or_default(), ..Default::default() })
    }

    /// The provider, checked.
    pub fn settle(self, kind: &str, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Provider> {
        let url = self.url.trim().trim_end_matches('/').to_owned();
        let address = reqwest::Url::parse(&url).with_context(|| format!("url is {url:?}"))?;
        ensure!(matches!(address.scheme(), "http" | "https"), "url must begin with http:// or https://");
        // It would be told wherever the address is.
        ensure!(
            address.username().is_empty() && address.password().is_none() && address.query().is_none(),
            "url must have neither a name, a password nor a query in it; a key belongs into a variable"
        );
        let key = match &self.key_env {
            None => None,
            Some(name) => {
                let text =
                    variable(name).with_context(|| format!("key_env names {name}, which is not set"))?;
                Some(Key::new(&text).with_context(|| format!("{name} has no key that can be sent in it"))?)
            }
        };
        let is_here = match address.host_str() {
            Some("localhost") => true,
            Some(host) => {
                host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|host| host.is_loopback())
            }
            None => bail!("url has no host"),
        };
        ensure!(
            key.is_none() || address.scheme() == "https" || is_here,
            "url is {url}, where the key could be read on its way; it must begin with https://"
        );
        for (table, fields) in [("defaults", &self.defaults), ("extra", &self.extra)] {
            let own = fields.keys().find(|name| Provider::OWN_FIELDS.contains(&name.as_str()));
            ensure!(own.is_none(), "{table} has {:?}, which is not set there", own.map_or("", |name| name));
        }
        let max_concurrent = self.max_concurrent.unwrap_or(MAX_CONCURRENT);
        ensure!(
            (1..=MAX_CONCURRENT_MAX).contains(&max_concurrent),
            "max_concurrent is {max_concurrent}; it must be from 1 to {MAX_CONCURRENT_MAX}"
        );
        let batch_concurrent = self.batch_concurrent.unwrap_or(max_concurrent);
        ensure!(
            (1..=max_concurrent).contains(&batch_concurrent),
            "batch_concurrent is {batch_concurrent}; it must be from 1 to {max_concurrent}, which is max_concurrent"
        );
        ensure!(self.max_tokens != Some(0), "max_tokens is 0; it must be at least 1");
        ensure!(self.max_tokens_limit != Some(0), "max_tokens_limit is 0; it must be at least 1");
        if let (Some(tokens), Some(limit)) = (self.max_tokens, self.max_tokens_limit) {
            ensure!(tokens <= limit, "max_tokens is {tokens}, and max_tokens_limit only {limit}");
        }
        let max_tokens_field = self.max_tokens_field.unwrap_or_else(|| "max_tokens".to_owned());
        ensure!(
            matches!(max_tokens_field.as_str(), "max_tokens" | "max_completion_tokens"),
            "max_tokens_field is {max_tokens_field:?}; it must be max_tokens or max_completion_tokens"
        );
        for (model, Prices { input, cached_input, output }) in &self.prices {
            let is_price = |price: f64| price.is_finite() && price >= 0.0;
            let are_prices = [*input, cached_input.unwrap_or(0.0), *output].into_iter().all(is_price);
            ensure!(are_prices, "prices of {model} must be 0 or more");
        }
        let time = |name, time: Option<Time>, default| {
            let time = time.map_or(default, |Time(time)| time);
            ensure!(!time.is_zero(), "{name} is 0; it must be longer");
            Ok(time)
        };
        Ok(Provider {
            kind: kind.to_owned(),
            url,
            key,
            models: self.models,
            defaults: self.defaults,
            extra: self.extra,
            max_tokens: self.max_tokens,
            max_tokens_limit: self.max_tokens_limit,
            max_tokens_field,
            max_concurrent,
            batch_concurrent,
            connect_timeout: time("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT)?,
            first_token_timeout: time("first_token_timeout", self.first_token_timeout, FIRST_TOKEN_TIMEOUT)?,
            idle_timeout: time("idle_timeout", self.idle_timeout, IDLE_TIMEOUT)?,
            on_break: self.on_break,
            prices: self.prices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SECRET: &str = "sk-very-secret";

    fn variable(name: &str) -> Option<String> {
        matches!(name, "THE_KEY" | API_KEY).then(|| SECRET.to_owned())
    }

    fn settle(text: &str) -> anyhow::Result<Provider> {
        toml::from_str::<ChatOptions>(text).unwrap().settle("chat", variable)
    }

    #[test]
    fn a_provider_has_its_key_from_a_variable_and_never_shows_it() {
        let text =
            "url = \"https://api.example/v1/\"\nkey_env = \"THE_KEY\"\nextra = { return_progress = true }";

        let provider = settle(text).unwrap();

        assert_eq!(provider.url, "https://api.example/v1");
        assert_eq!(provider.extra["return_progress"], true);
        assert!(provider.key.is_some());
        assert!(!format!("{provider:?}").contains(SECRET), "{provider:?}");
    }

    #[test]
    fn flags_come_before_the_variables_that_others_know() {
        let of = |url: Option<&str>, base: &str| {
            let known = |name: &str| (name == BASE_URL).then(|| base.to_owned());
            ChatOptions::of_flags(url.map(str::to_owned), None, known).map(|options| options.url)
        };

        assert_eq!(of(Some("http://a"), "http://b").as_deref(), Some("http://a"));
        assert_eq!(of(None, "http://b").as_deref(), Some("http://b"));
        assert_eq!(of(None, ""), None);
    }

    #[rstest]
    #[case("url = \"api.example\"", "url is \"api.example\"")]
    #[case("url = \"ftp://api.example\"", "url must begin with")]
    #[case("url = \"https://me:secret@api.example\"", "url must have neither")]
    #[case("url = \"https://api.example?key=1\"", "url must have neither")]
    #[case("url = \"http://api.example\"\nkey_env = \"THE_KEY\"", "must begin with https://")]
    #[case("url = \"http://a\"\nkey_env = \"NOT_SET\"", "key_env names NOT_SET")]
    #[case("url = \"http://a\"\nmax_concurrent = 0", "max_concurrent is 0")]
    #[case("url = \"http://a\"\nmax_concurrent = 2\nbatch_concurrent = 3", "batch_concurrent is 3")]
    #[case("url = \"http://a\"\nidle_timeout = \"0s\"", "idle_timeout is 0")]
    #[case("url = \"http://a\"\nmax_tokens = 9\nmax_tokens_limit = 5", "max_tokens is 9")]
    #[case("url = \"http://a\"\nmax_tokens_field = \"n\"", "max_tokens_field is \"n\"")]
    #[case("url = \"http://a\"\nextra = { stream = false }", "extra has \"stream\"")]
    #[case("url = \"http://a\"\nprices.m = { input = -1.0, output = 1.0 }", "prices of m")]
    fn what_cannot_be_is_told_by_its_name(#[case] text: &str, #[case] expected: &str) {
        let error = format!("{:#}", settle(text).unwrap_err());

        assert!(error.contains(expected) && !error.contains(SECRET), "{error}");
    }
}
