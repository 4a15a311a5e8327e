//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

/// Train, run and look into models.
#[derive(Parser, Debug)]
#[command(name = "ferrata", version, about, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ferrata train                                  learn to write Rust from cargo's sources
  ferrata train --text notes/ --out runs/notes   learn from your own files
  ferrata generate runs/quickstart --prompt 'fn main'
  ferrata eval runs/quickstart --text book.txt
  ferrata inspect runs/quickstart

Exit codes: 0 done, or stopped with Ctrl-C after saving; 2 wrong input or an error (one line on
stderr says cause and remedy); 130 stopped by a second Ctrl-C.";

#[derive(Subcommand, Debug)]
pub enum Command {
    Train(Train),
    Generate(Generate),
    Eval(Eval),
    Run(Run),
    Inspect(Inspect),
    /// Show what this machine has and which path each kernel takes
    Devices,
}

/// Train a model from text, or go on with one
///
/// Reads a TOML configuration (the recipe "quickstart" if none is given), trains, and leaves in
/// the output folder: config.toml, metrics.jsonl, TensorBoard events, checkpoints and, at the end,
/// the model as a Hugging Face directory (final). Ctrl-C saves a checkpoint and ends; a second one
/// aborts. The same seed gives the same result to the last bit, with any number of threads and
/// however often the run is interrupted and resumed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata train
  ferrata train --text src/ --set train.steps=500
  ferrata train recipes/shakespeare.toml --text tinyshakespeare.txt --out runs/shakespeare
  ferrata train recipes/shakespeare.toml --text tinyshakespeare.txt --out runs/shakespeare --resume
  ferrata train recipes/shakespeare.toml --text tinyshakespeare.txt --dry-run
  ferrata train tune.toml --init gpt2/ --replay batches.safetensors --out runs/replay")]
pub struct Train {
    /// Configuration file (TOML); without it the built-in recipe "quickstart", or with --resume
    /// the configuration in the output folder
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Text files or folders to learn from, in place of those in the configuration
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub text: Vec<PathBuf>,
    /// Set a value of the configuration, such as train.steps=500; can be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Output folder [default: runs/NAME, with a number if there is such a run already]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Continue the run in the output folder from its latest checkpoint, or begin it
    #[arg(long)]
    pub resume: bool,
    /// Check data, shapes, memory and disk space, report them, and stop before the first step
    #[arg(long)]
    pub dry_run: bool,
    /// Start from the weights of this model directory instead of random ones
    #[arg(long, value_name = "MODEL_DIR", value_hint = ValueHint::DirPath)]
    pub init: Option<PathBuf>,
    /// Train on recorded batches: a safetensors file with input_ids and targets, I64 [steps,
    /// batch, sequence]; one step per entry, in order; no data, evaluation or checkpoints
    #[arg(long, value_name = "FILE", requires = "init", conflicts_with_all = ["text", "resume"])]
    pub replay: Option<PathBuf>,
}

/// Continue a prompt with a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata generate runs/quickstart --prompt 'pub fn ' --temperature 0.8
  ferrata generate gpt2/ --prompt 'Once' --top-k 50 --seed 7
  ferrata generate model/ --tokens 5,17,3 --max-new 16 --temperature 0 --print-tokens")]
pub struct Generate {
    /// Model directory, run folder or checkpoint
    #[arg(value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// Text to continue
    #[arg(long, short, default_value = "", conflicts_with = "tokens")]
    pub prompt: String,
    /// Token ids to continue, for models without a tokenizer
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    pub tokens: Option<Vec<u32>>,
    /// Number of new tokens
    #[arg(long, short = 'n', default_value_t = 256, value_name = "N")]
    pub max_new: usize,
    /// 0 always takes the likeliest token; 1 draws from the model's distribution
    #[arg(long, short, default_value_t = 0.8, value_name = "T")]
    pub temperature: f64,
    /// Draw from the K likeliest tokens only
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Seed of the drawing
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print token ids, separated by commas, instead of text
    #[arg(long)]
    pub print_tokens: bool,
}

/// Measure a model's loss on text
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata eval runs/shakespeare                      on the run's own validation part
  ferrata eval runs/shakespeare --text other.txt")]
pub struct Eval {
    /// Model directory, run folder or checkpoint
    #[arg(value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// Text files or folders; without them the validation part of the run that made the model
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub text: Vec<PathBuf>,
    /// Length of a window in tokens [default: the model's context]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Windows per batch
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
}

/// Evaluate a model on given tensors
///
/// Language models take input_ids, I64 [batch, sequence], and give logits.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata run gpt2/ --input in.safetensors --output out.safetensors")]
pub struct Run {
    /// Model directory, run folder or checkpoint
    #[arg(value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// Safetensors file with the inputs
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub input: PathBuf,
    /// Safetensors file to be written
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}

/// Look into a model: parameters, FLOPs, program, kernels, memory
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata inspect runs/quickstart
  ferrata inspect gpt2/ --training --batch 8 --kernels
  ferrata inspect recipes/gpt2-124m.toml --pass simplify")]
pub struct Inspect {
    /// Model directory, run folder, checkpoint or configuration file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: PathBuf,
    /// Look at the training step instead of the forward pass
    #[arg(long)]
    pub training: bool,
    /// Sequences per batch
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub batch: usize,
    /// Length of a sequence [default: the model's context]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Print every parameter with its shape
    #[arg(long)]
    pub parameters: bool,
    /// Print the program after this pass; "program" is the one that was traced
    #[arg(long, value_name = "NAME")]
    pub pass: Option<String>,
    /// Print the kernels
    #[arg(long)]
    pub kernels: bool,
    /// Print the schedule with the places in memory
    #[arg(long)]
    pub schedule: bool,
}
