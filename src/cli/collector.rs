//! Where traces are sent, and whether at all: by our own settings, or where these say nothing by the variables that programs with
//! OpenTelemetry have in common.
//!
//! Ours is refused where it cannot be kept to. The common ones may be meant for every program of a machine, so that no server stays
//! away because it cannot do what they say.

use crate::traces;
use anyhow::{Context as _, ensure};

/// The common variables with the address of a collector; the first that is set wins.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Those with the protocol that it speaks.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    /// To this one.
    At(traces::Settings),
    /// Nowhere, and nobody has asked for it.
    Nowhere,
    /// Nowhere, although the common variables ask for it; this is why.
    Beyond(String),
}

impl Collector {
    /// As our own settings say, and where they name no collector, the common variables.
    pub fn of(
        endpoint: Option<String>,
        per_second: Option<u32>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let traces_per_second = per_second.unwrap_or(100);
        ensure!(traces_per_second > 0, "traces_per_second is 0; it must be at least 1");
        let to = |endpoint| Self::At(traces::Settings { endpoint, traces_per_second });
        if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) {
            traces::check_endpoint(&endpoint).context("otlp_endpoint")?;
            return Ok(to(endpoint));
        }
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, set(name)?)));
        let is = |name: &str, word: &str| set(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(Self::Nowhere);
        }
        let Some((name, endpoint)) = first(ENDPOINTS) else { return Ok(Self::Nowhere) };
        if let Some((name, protocol)) = first(PROTOCOLS)
            && protocol != "grpc"
        {
            return Ok(Self::Beyond(format!("{name} is `{protocol}`; this version speaks grpc alone")));
        }
        match traces::check_endpoint(&endpoint) {
            Ok(()) => Ok(to(endpoint)),
            Err(error) if endpoint.starts_with("https://") => Ok(Self::Beyond(format!("{name}: {error}"))),
            Err(error) => Err(error).context(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    const TLS: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317");

    fn collector(own: Option<&str>, variables: &[(&str, &str)]) -> anyhow::Result<Collector> {
        let value =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into());
        Collector::of(own.map(Into::into), None, value)
    }

    fn to(endpoint: &str) -> Collector {
        Collector::At(traces::Settings { endpoint: endpoint.into(), traces_per_second: 100 })
    }

    #[rstest]
    #[case::nothing(&[], Collector::Nowhere)]
    #[case::empty(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], Collector::Nowhere)]
    #[case::an_address(&[GRPC], to("http://collector:4317"))]
    #[case::one_for_traces(&[GRPC, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:1")], to("http://other:1"))]
    #[case::grpc(&[GRPC, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], to("http://collector:4317"))]
    #[case::grpc_for_traces(
        &[GRPC, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")],
        to("http://collector:4317"),
    )]
    #[case::disabled(&[GRPC, ("OTEL_SDK_DISABLED", "True")], Collector::Nowhere)]
    #[case::not_disabled(&[GRPC, ("OTEL_SDK_DISABLED", "false")], to("http://collector:4317"))]
    #[case::no_exporter(&[GRPC, ("OTEL_TRACES_EXPORTER", "none")], Collector::Nowhere)]
    #[case::an_exporter(&[GRPC, ("OTEL_TRACES_EXPORTER", "otlp")], to("http://collector:4317"))]
    #[case::disabled_and_beyond(&[TLS, ("OTEL_SDK_DISABLED", "true")], Collector::Nowhere)]
    fn the_common_variables_are_heeded(#[case] variables: &[(&str, &str)], #[case] expected: Collector) {
        assert_eq!(collector(None, variables).unwrap(), expected);
    }

    #[rstest]
    #[case(&[TLS], "https://collector:4317")]
    #[case(&[GRPC, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "OTEL_EXPORTER_OTLP_PROTOCOL is `http/protobuf`")]
    #[case(&[GRPC, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")], "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is `http/json`")]
    fn what_they_ask_for_beyond_our_means_stops_nobody(
        #[case] variables: &[(&str, &str)],
        #[case] why: &str,
    ) {
        let Collector::Beyond(told) = collector(None, variables).unwrap() else { panic!("it is traced") };

        assert!(told.contains(why), "{told}");
    }

    #[test]
    fn our_own_setting_is_strict_and_not_theirs_to_switch_off() {
        let off = [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), TLS];

        assert_eq!(collector(Some("http://mine:4317"), &off).unwrap(), to("http://mine:4317"));
        let error = collector(Some("https://mine:4317"), &[GRPC]).unwrap_err();
        assert_eq!(error.to_string(), "otlp_endpoint");
        let error = collector(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]).unwrap_err();
        assert_eq!(error.to_string(), "OTEL_EXPORTER_OTLP_ENDPOINT");
    }
}
