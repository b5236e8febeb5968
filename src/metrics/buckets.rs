//! The limits between the buckets of what is measured.

use prometheus_client::metrics::histogram::Histogram;

/// Of what the server does itself: from a tenth of a millisecond, which a flush on a good disk takes, to ten seconds, after
/// which nobody waits any more.
const SHORT: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Of what jobs take, from next to nothing to a day. Few, since each kind has them twice.
const LONG: [f64; 14] =
    [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Of how much is in a batch: powers of two, to the most reports and calls that fit into one.
const SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0];

/// A histogram of what the server does itself, in seconds.
pub fn short() -> Histogram {
    Histogram::new(SHORT)
}

/// A histogram of what jobs take, in seconds.
pub fn long() -> Histogram {
    Histogram::new(LONG)
}

/// A histogram of numbers of operations.
pub fn sizes() -> Histogram {
    Histogram::new(SIZES)
}
