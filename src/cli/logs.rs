//! The logs of a process that stays: on standard error, never with an input or an output in them.

use super::settings::LogFormat;
use anyhow::Context as _;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Begins to log what the filter lets through. Panics are logged too, by their place alone.
pub fn begin(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log is {filter:?}"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let begun = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("logs cannot be written: {error}"))?;
    // The hook that is there by default writes plain text between the logs, and a panic's own words may quote an input.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(thread = thread.name(), location, "a panic");
    }));
    Ok(())
}
