//! Predicts and measures training steps on ranks of this machine:
//!
//!     cargo build --release -p ferrata-cli
//!     cargo run --release -p ferrata-cluster --example local -- target/release/ferrata recipe.toml TEXT

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Ranks, axes of the mesh, microbatch, and what else is fixed of a plan.
type Layout = (usize, &'static str, usize, &'static [&'static str]);

const LAYOUTS: [Layout; 12] = [
    (1, "data=1", 8, &[]),
    (1, "data=1", 2, &[]),
    (1, "data=1", 8, &["--recompute", "full"]),
    (2, "data=2", 4, &[]),
    (2, "data=2", 4, &["--zero", "1"]),
    (2, "tensor=2", 8, &[]),
    (2, "tensor=2", 8, &["--sequence-parallel", "true"]),
    (2, "pipeline=2", 2, &[]),
    (2, "pipeline=2", 2, &["--schedule", "gpipe"]),
    (4, "data=4", 2, &[]),
    (4, "data=2,tensor=2", 4, &[]),
    (4, "pipeline=2,data=2", 1, &[]),
];

/// A GPT of 10.8 M parameters on eight sequences of 128 bytes.
const SETTINGS: [&str; 12] = [
    "model.layers=6",
    "model.heads=6",
    "model.dim=384",
    "model.context=128",
    "model.vocab=256",
    "data.tokenizer=byte",
    "train.batch=8",
    "train.steps=16",
    "train.log_every=1",
    "train.eval_every=0",
    "train.sample_every=0",
    "schedule.warmup=2",
];
/// Steps that do not count.
const WARM_UP: usize = 4;
const TOKENS: f64 = 8.0 * 128.0;

struct Machine {
    ferrata: PathBuf,
    recipe: PathBuf,
    text: PathBuf,
    folder: PathBuf,
}

fn main() -> Result<()> {
    let [ferrata, recipe, text] = std::env::args_os()
        .skip(1)
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "give the ferrata program, a recipe and a text")?;
    let folder = std::env::temp_dir().join(format!("ferrata-local-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let machine = Machine { ferrata, recipe, text, folder };
    println!("| ranks | layout | microbatch | predicted | measured | error |");
    println!("|---|---|---|---|---|---|");
    let mut pairs = Vec::new();
    for (number, (ranks, mesh, microbatch, more)) in LAYOUTS.into_iter().enumerate() {
        let plan = machine.folder.join(format!("plan-{number}.toml"));
        let predicted = machine.predict(LAYOUTS[number], &plan)?;
        let measured = machine.measure(&plan)?;
        let error = 100.0 * (predicted / measured - 1.0);
        let name = [&[mesh], more].concat().join(" ").replace("--", "");
        println!(
            "| {ranks} | {name} | {microbatch} | {:.0} ms | {:.0} ms | {error:+.0} % |",
            1e3 * predicted,
            1e3 * measured
        );
        pairs.push((predicted, measured));
    }
    println!("rank correlation {:.3}", rank_correlation(&pairs));
    std::fs::remove_dir_all(&machine.folder)?;
    Ok(())
}

impl Machine {
    /// Runs `ferrata` with the settings of the model; gives what it prints.
    fn run(&self, arguments: &[&OsStr]) -> Result<String> {
        let settings = SETTINGS.iter().flat_map(|setting| ["--set", setting]);
        let output = Command::new(&self.ferrata).args(arguments).args(settings).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Seconds of a step by the cost model; all layouts of as many ranks are predicted from one
    /// measurement of the machine.
    fn predict(&self, (ranks, mesh, microbatch, more): Layout, plan: &Path) -> Result<f64> {
        let cluster = self.folder.join(format!("local-{ranks}.toml"));
        let [devices, microbatch] = [ranks, microbatch].map(|number| number.to_string());
        let axes = ["tensor", "pipeline", "data"].map(|axis| match mesh.contains(axis) {
            true => String::new(),
            false => format!(",{axis}=1"),
        });
        let mesh = mesh.to_owned() + &axes.concat();
        let known = cluster.exists();
        let from = if known { cluster.as_os_str() } else { OsStr::new("local") };
        let mut words: Vec<&OsStr> = vec!["plan".as_ref(), self.recipe.as_os_str()];
        words.extend(["--cluster".as_ref(), from, "--out".as_ref(), plan.as_os_str()]);
        if !known {
            words.extend(["--save-cluster".as_ref(), cluster.as_os_str()]);
        }
        let fixed = ["--devices", &devices, "--mesh", &mesh, "--microbatch", &microbatch, "--json"];
        words.extend(fixed.into_iter().chain(more.iter().copied()).map(OsStr::new));
        for (option, value) in [
            ("--zero", "0"),
            ("--recompute", "none"),
            ("--schedule", "1f1b"),
            ("--sequence-parallel", "false"),
            ("--interleave", "1"),
        ] {
            if !more.contains(&option) {
                words.extend([option, value].map(OsStr::new));
            }
        }
        let json: Value = serde_json::from_str(&self.run(&words)?)?;
        json["step_seconds"].as_f64().ok_or_else(|| "no step time was predicted".into())
    }

    /// The median seconds of a step that is executed as planned.
    fn measure(&self, plan: &Path) -> Result<f64> {
        let out = plan.with_extension("run");
        let mut words: Vec<&OsStr> = ["launch", "--", "train"].map(OsStr::new).to_vec();
        words.extend([self.recipe.as_os_str(), "--text".as_ref(), self.text.as_os_str()]);
        words.extend(["--plan".as_ref(), plan.as_os_str(), "--out".as_ref(), out.as_os_str()]);
        self.run(&words)?;
        let lines = std::fs::read_to_string(out.join("metrics.jsonl"))?;
        let lines = lines.lines().map(serde_json::from_str::<Value>);
        let lines = lines.collect::<std::result::Result<Vec<_>, _>>()?;
        let speeds = lines.iter().filter_map(|line| line["tokens_per_second"].as_f64());
        let mut seconds: Vec<f64> = speeds.skip(WARM_UP).map(|speed| TOKENS / speed).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().ok_or_else(|| "no step was measured".into())
    }
}

/// Spearman's rank correlation.
fn rank_correlation(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let rank = |x: &f64| values.iter().filter(|y| *y < x).count() as f64;
        values.iter().map(rank).collect()
    };
    let (a, b) =
        (ranks(pairs.iter().map(|p| p.0).collect()), ranks(pairs.iter().map(|p| p.1).collect()));
    let n = pairs.len() as f64;
    let distance: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    1.0 - 6.0 * distance / (n * (n * n - 1.0))
}
