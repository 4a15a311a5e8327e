//! What a cluster is made of: accelerators, the levels of the network between them, the software
//! that runs there, and how often it fails. Read from a TOML file.

use std::collections::BTreeMap;

use ferrata_ir::{DType, Error, Result};
use serde::{Deserialize, Serialize};

/// The name of the cluster that this machine is.
pub const LOCAL: &str = "local";

/// A cluster, as its file describes it. Bytes are decimal, times are in seconds, rates per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Name for people.
    pub name: String,
    /// How many accelerators there are, unless a plan asks for another number.
    pub devices: usize,
    /// One of them.
    pub accelerator: Accelerator,
    /// The networks between them, the innermost first; the last one joins everything.
    pub network: Vec<Network>,
    /// What the software on it does and does not do.
    #[serde(default)]
    pub software: Software,
    /// What was measured of kernels and links; by default what was fitted to published runs.
    #[serde(default)]
    pub calibration: Calibration,
    /// How often devices fail.
    #[serde(default)]
    pub failures: Failures,
}

/// What one accelerator can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// Name for people.
    pub name: String,
    /// Operations per second of matrix products, by the dtype of their operands.
    pub peak: BTreeMap<String, f64>,
    /// Bytes of memory.
    pub memory: f64,
    /// Bytes per second of memory.
    pub bandwidth: f64,
    /// How many of them take turns on one processor, so that one whose neighbours wait is as many
    /// times as fast; the rates here are those while all work.
    #[serde(default = "alone")]
    pub sharing: f64,
}

fn alone() -> f64 {
    1.0
}

/// One level of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Name for people.
    pub name: String,
    /// How many accelerators are together in one such network; all of them if absent.
    pub size: Option<usize>,
    /// Bytes per second that each accelerator sends, and receives at the same time.
    pub bandwidth: f64,
    /// Seconds until the first byte arrives.
    pub latency: f64,
    /// Bytes per second that each accelerator adds up of what it receives, if it cannot receive
    /// meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduction: Option<f64>,
}

/// Habits of the software that change memory and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Software {
    /// Composites that run as one kernel, such as `attention_forward`; the bodies of others are
    /// computed value by value.
    pub claims: Vec<String>,
    /// Whether masks of dropout are kept for the backward pass, a byte each; else they are drawn
    /// again.
    pub keeps_masks: bool,
    /// Whether nothing is kept in a wider dtype than that of the matrix products.
    pub keeps_narrow: bool,
    /// Bytes per parameter of the weights that products read.
    pub weight_bytes: f64,
    /// Bytes per parameter of the summed gradient.
    pub gradient_bytes: f64,
    /// Bytes per parameter of master weights and moments.
    pub optimizer_bytes: f64,
    /// Whether gradients are reduced while the backward pass still runs.
    pub overlaps_gradients: bool,
}

impl Default for Software {
    fn default() -> Self {
        Software {
            claims: Cluster::attention(),
            keeps_masks: false,
            keeps_narrow: false,
            weight_bytes: 2.0,
            gradient_bytes: 4.0,
            optimizer_bytes: 12.0,
            overlaps_gradients: true,
        }
    }
}

/// The constants that no datasheet has. At most these six are fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calibration {
    /// Share of the peak that large matrix products reach.
    pub product: f64,
    /// Smallest dimension of a product at which it reaches half of that, in operations that the
    /// accelerator does while it moves a byte.
    pub half: f64,
    /// Share of the memory's bandwidth that kernels reach.
    pub memory: f64,
    /// Share of a link's bandwidth that collectives reach.
    pub link: f64,
    /// Seconds that a kernel takes beyond its work.
    pub launch: f64,
    /// Share of communication that independent products hide.
    pub hidden: f64,
}

impl Default for Calibration {
    /// As fitted by `cargo run --release -p ferrata-cluster --example fit`.
    fn default() -> Self {
        Calibration {
            product: 0.9949,
            half: 2.531,
            memory: 0.7281,
            link: 0.7764,
            launch: 33.52e-6,
            hidden: 0.7129,
        }
    }
}

/// How often hardware fails, and how long a restart takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Failures {
    /// Mean hours between failures of one device.
    pub device_hours: f64,
    /// Seconds from a failure until training runs again, without what is computed again.
    pub restart: f64,
    /// Bytes per second that a device writes of a checkpoint.
    pub checkpoint_bandwidth: f64,
    /// Hours until a failed device is back.
    pub repair_hours: f64,
}

impl Default for Failures {
    /// 419 unexpected interruptions of 16,384 devices in 54 days (Llama 3, arXiv 2407.21783).
    fn default() -> Self {
        Failures {
            device_hours: 54.0 * 24.0 * 16384.0 / 419.0,
            restart: 600.0,
            checkpoint_bandwidth: 2e9,
            repair_hours: 24.0,
        }
    }
}

impl Cluster {
    /// The composites of which attention consists.
    pub fn attention() -> Vec<String> {
        ["attention", "attention_forward", "attention_backward"].map(str::to_owned).to_vec()
    }

    /// Reads a cluster file.
    ///
    /// # Errors
    /// Says which key is wrong.
    pub fn parse(text: &str) -> Result<Cluster> {
        let cluster: Cluster = toml::from_str(text).map_err(|error| wrong_file(error.message()))?;
        cluster.check()?;
        Ok(cluster)
    }

    /// The text of its file.
    ///
    /// # Errors
    /// If it cannot be written as TOML.
    pub fn text(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|error| Error::new(format!("the cluster cannot be written: {error}")))
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(wrong_file(what));
        let (a, c) = (&self.accelerator, &self.calibration);
        if self.devices == 0 {
            return wrong("`devices` is 0");
        }
        if a.peak.is_empty() || a.peak.values().any(|peak| !positive(*peak)) {
            return wrong("`accelerator.peak` must have a positive rate for each dtype");
        }
        for (key, value) in [
            ("accelerator.memory", a.memory),
            ("accelerator.bandwidth", a.bandwidth),
            ("accelerator.sharing", a.sharing),
            ("calibration.product", c.product),
            ("calibration.memory", c.memory),
            ("calibration.link", c.link),
            ("failures.device_hours", self.failures.device_hours),
            ("failures.checkpoint_bandwidth", self.failures.checkpoint_bandwidth),
        ] {
            if !positive(value) {
                return wrong(&format!("`{key}` must be above 0"));
            }
        }
        for (key, value) in [
            ("calibration.half", c.half),
            ("calibration.launch", c.launch),
            ("calibration.hidden", c.hidden),
            ("failures.restart", self.failures.restart),
            ("failures.repair_hours", self.failures.repair_hours),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(&format!("`{key}` must be at least 0"));
            }
        }
        let Some((last, inner)) = self.network.split_last() else {
            return wrong("there is no [[network]]");
        };
        if last.size.is_some() {
            return wrong("the last [[network]] joins everything and has no `size`");
        }
        let mut within = 1;
        for network in inner {
            let name = &network.name;
            match network.size {
                Some(size) if size > within && size.is_multiple_of(within) => within = size,
                _ => {
                    return wrong(&format!(
                        "the `size` of network `{name}` must be a larger multiple of {within}"
                    ));
                }
            }
        }
        match self.network.iter().find(|n| {
            let rates = [Some(n.bandwidth), n.reduction];
            !rates.into_iter().flatten().all(positive) || n.latency.is_nan() || n.latency < 0.0
        }) {
            Some(network) => {
                wrong(&format!("network `{}` needs a bandwidth and a latency", network.name))
            }
            None => Ok(()),
        }
    }

    /// Operations per second of products of this dtype.
    ///
    /// # Errors
    /// If the accelerator has none.
    pub fn peak(&self, dtype: DType) -> Result<f64> {
        let name = dtype.to_string();
        self.accelerator.peak.get(&name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.accelerator.peak.keys().map(String::as_str).collect();
            let accelerator = &self.accelerator.name;
            Error::new(format!("{accelerator} has no rate for products of {name}"))
                .help(format!("it has rates for {}", known.join(", ")))
        })
    }

    /// The accelerators of the innermost network.
    pub fn node(&self) -> usize {
        self.network.first().and_then(|network| network.size).unwrap_or(self.devices)
    }

    /// A number that changes with everything that a plan depends on.
    pub fn fingerprint(&self) -> String {
        let mut same = self.clone();
        same.devices = 0;
        crate::fingerprint(&format!("{same:?}"))
    }
}

fn wrong_file(what: &str) -> Error {
    Error::new(format!("the cluster file is wrong: {what}"))
        .help("the files in clusters/ show what it has to say")
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}
