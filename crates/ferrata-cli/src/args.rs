//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::device::Kind;

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
  ferrata train --images flowers/                learn the classes of your own pictures
  ferrata classify runs/images rose.jpg
  ferrata paint runs/scenes 'a red circle'      paint what a text describes
  ferrata launch --ranks 4 -- train --out runs/four
  ferrata generate runs/quickstart --prompt 'fn main'
  ferrata eval runs/quickstart --text book.txt
  ferrata inspect runs/quickstart
  ferrata profile                                where the time of a step goes
  ferrata bench                                  how fast this machine and its kernels are
  ferrata plan gpt.toml --cluster dgx-a100.toml   how to lay a run out over a cluster

Exit codes: 0 done, or stopped with Ctrl-C after saving; 2 wrong input or an error (one line on
stderr says cause and remedy); 130 stopped by a second Ctrl-C.";

#[derive(Subcommand, Debug)]
pub enum Command {
    Train(Train),
    #[cfg(unix)]
    Launch(Launch),
    Generate(Generate),
    Classify(Classify),
    Paint(Paint),
    Eval(Eval),
    Run(Run),
    Inspect(Inspect),
    Profile(Profile),
    Bench(Bench),
    Plan(Plan),
    Simulate(Simulate),
    #[command(subcommand)]
    Data(Data),
    Devices(Devices),
}

/// Show what this machine has and which path each kernel takes
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata devices
  ferrata devices --check ascend --out report.txt")]
pub struct Devices {
    /// Try a device out: show what its libraries have and lack, run every primitive and kind of
    /// kernel, compare with their meaning, and write a report that can be attached to an issue
    #[arg(long, value_enum, value_name = "DEVICE")]
    pub check: Option<Checked>,
    /// File of the report
    #[arg(long, value_name = "FILE", default_value = "ascend.txt", requires = "check", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
}

/// A device that can be tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Checked {
    /// The first Ascend NPU
    Ascend,
}

/// Train a model from text or images, or go on with one
///
/// Reads a TOML configuration (the recipe "quickstart" if none is given, "images" for images), trains, and leaves in
/// the output folder: config.toml, metrics.jsonl, TensorBoard events, checkpoints and, at the end,
/// the model as a Hugging Face directory (final). Ctrl-C saves a checkpoint and ends; a second one
/// aborts. The same seed gives the same result to the last bit, with any number of threads and
/// however often the run is interrupted and resumed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata train
  ferrata train --text src/ --set train.steps=500
  ferrata train --images flowers/ --set data.size=64
  ferrata train recipes/shakespeare.toml --text tinyshakespeare.txt --out runs/shakespeare
  ferrata train recipes/shakespeare.toml --text tinyshakespeare.txt --out runs/shakespeare --resume
  ferrata train recipes/shakespeare.toml --text tinyshakespeare.txt --dry-run
  ferrata train tune.toml --init gpt2/ --replay batches.safetensors --out runs/replay")]
pub struct Train {
    #[command(flatten)]
    pub recipe: Recipe,
    /// Output folder [default: runs/NAME, with a number if there is such a run already]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Plan file of `ferrata plan` to be executed as it is: mesh, microbatches, layers of stages,
    /// what is shared and computed again, dtype
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mesh", "replay"], value_hint = ValueHint::FilePath)]
    pub plan: Option<PathBuf>,
    /// Continue the run in the output folder from its latest checkpoint, or begin it
    #[arg(long)]
    pub resume: bool,
    /// Where the steps run
    #[arg(long, value_enum, default_value_t = Kind::Cpu)]
    pub device: Kind,
    /// Check data, shapes, memory and disk space, report them, and stop before the first step
    #[arg(long)]
    pub dry_run: bool,
    /// Show where the time of N steps goes, after two that do not count; leaves profile.json and
    /// trace.json in the output folder
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub profile: Option<u64>,
    /// Train on recorded batches: a safetensors file with input_ids and targets, I64 [steps,
    /// batch, sequence], or images, F32 [steps, batch, channels, height, width], and labels, I64
    /// [steps, batch]; one step per entry, in order; no data, evaluation or checkpoints
    #[arg(long, value_name = "FILE", requires = "init", conflicts_with_all = ["text", "images", "resume"])]
    pub replay: Option<PathBuf>,
}

/// Run a command on several ranks, watch over them, and start them again after a fault
///
/// Each rank is a process of its own, on this machine or on the nodes that mpirun or srun start
/// it on. A rank that dies, stands still, hangs or crawls is named, with its host and its last
/// collective; then all are ended and started again from the last checkpoint. Ctrl-C lets all
/// ranks save and end; a second one aborts.
#[cfg(unix)]
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata launch --ranks 4 -- train recipe.toml --out runs/four
  ferrata launch -- train recipe.toml --plan plan.toml
  ferrata launch --ranks 16 --with srun -- train recipe.toml --out runs/many
  ferrata launch --ranks 16 --with mpirun --backend mpi --pass=--hostfile --pass=hosts -- train
  ferrata launch --ranks 16 --per-node 8 --time 24:00:00 --write slurm -- train > job.sh
  ferrata launch --ranks 16 --image ferrata:1 --write kubernetes -- train > job.yaml

See docs/cluster.md for the environment of ranks, and for programs of your own.")]
pub struct Launch {
    /// How many ranks there are [default: those of the plan, if the command is train --plan FILE]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: Option<u32>,
    /// Go on with so many when others fail again and again [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub min_ranks: Option<u32>,
    /// Who starts the ranks
    #[arg(long, value_enum, default_value = "local")]
    pub with: LaunchWith,
    /// What carries their data
    #[arg(long, value_enum, default_value = "sockets")]
    pub backend: LaunchBackend,
    /// Where ranks find this launcher [default: a Unix socket for local ranks, else a free port of
    /// this host]
    #[arg(long, value_name = "HOST:PORT", required_if_eq("with", "none"))]
    pub listen: Option<String>,
    /// An argument for mpirun or srun; can be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub pass: Vec<std::ffi::OsString>,
    /// Give up after so many starts in a row that get no step further
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub restarts: u32,
    /// A rank that says nothing for so long is taken for lost
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    pub silence: f64,
    /// All ranks have to join within this time
    #[arg(long, default_value_t = 120.0, value_name = "SECONDS")]
    pub start_time: f64,
    /// Under Slurm: when the time of the job is nearly over (SIGUSR1), save and queue it again
    #[arg(long)]
    pub requeue: bool,
    /// The program that ranks run, instead of this one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::ExecutablePath)]
    pub program: Option<PathBuf>,
    /// Print a job script or manifest instead of running
    #[arg(long, value_enum, value_name = "SCHEDULER")]
    pub write: Option<LaunchWrite>,
    #[command(flatten)]
    pub shape: LaunchShape,
    /// What each rank runs, such as: train recipe.toml --out runs/four
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// What a job script asks for
#[cfg(unix)]
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of --write")]
pub struct LaunchShape {
    /// Name of the job
    #[arg(long, default_value = "ferrata", value_name = "NAME", requires = "write")]
    pub name: String,
    /// Ranks on each node [default: all]
    #[arg(long, value_name = "N", requires = "write", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_node: Option<u32>,
    /// Cores of each rank
    #[arg(long, value_name = "N", requires = "write", value_parser = clap::value_parser!(u32).range(1..))]
    pub cores: Option<u32>,
    /// Memory of each rank, as the scheduler writes it
    #[arg(long, value_name = "SIZE", requires = "write")]
    pub memory: Option<String>,
    /// Slurm: how long the job may run
    #[arg(long, value_name = "TIME", requires = "write")]
    pub time: Option<String>,
    /// Kubernetes: container image whose entry point is ferrata
    #[arg(long, value_name = "IMAGE", requires = "write")]
    pub image: Option<String>,
}

/// Who starts ranks
#[cfg(unix)]
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum LaunchWith {
    /// This program, on this machine
    Local,
    /// mpirun, of Open MPI or MPICH
    Mpirun,
    /// srun, in an allocation of Slurm
    Srun,
    /// Somebody else, such as Kubernetes
    None,
}

/// What carries data between ranks
#[cfg(unix)]
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum LaunchBackend {
    /// Unix domain sockets on one machine, TCP between machines
    Sockets,
    /// MPI; needs a build with --features mpi
    Mpi,
}

/// What job scripts are for
#[cfg(unix)]
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum LaunchWrite {
    /// A script for sbatch
    Slurm,
    /// A JobSet
    Kubernetes,
}

/// What to train, and on what
#[derive(Args, Debug)]
pub struct Recipe {
    /// Configuration file (TOML); without it the built-in recipe "quickstart", or with
    /// `train --resume` the configuration in the output folder
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Text files or folders to learn from, in place of those in the configuration
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub text: Vec<PathBuf>,
    /// Folder with a folder of pictures for each class to learn, in place of the images in the
    /// configuration; without a configuration the built-in recipe "images"
    #[arg(long, value_name = "DIR", conflicts_with = "text", value_hint = ValueHint::DirPath)]
    pub images: Option<PathBuf>,
    /// How the ranks of a job lie: axes with sizes, such as data=2,tensor=4 (see docs/cluster.md)
    #[arg(long, value_name = "AXIS=SIZE,…")]
    pub mesh: Option<String>,
    /// Set a value of the configuration, such as train.steps=500; can be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Start from the weights of this model directory instead of random ones
    #[arg(long, value_name = "MODEL_DIR", value_hint = ValueHint::DirPath)]
    pub init: Option<PathBuf>,
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

/// Tell what pictures show
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata classify runs/images rose.jpg tulip.png
  ferrata classify resnet18/ photo.jpg --top 1")]
pub struct Classify {
    /// Model directory, run folder or checkpoint of an image classifier
    #[arg(value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// Pictures
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub images: Vec<PathBuf>,
    /// So many classes are shown
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub top: usize,
}

/// Paint pictures of what texts describe
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata paint runs/scenes 'a green star left of a yellow triangle' --out a.png
  ferrata paint runs/scenes 'two red circles on white' 'a blue cross' --count 4 --guidance 4")]
pub struct Paint {
    /// Model directory, run folder or checkpoint of a text-to-image model
    #[arg(value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// What the pictures show
    #[arg(required = true, value_name = "PROMPT")]
    pub prompts: Vec<String>,
    /// PNG file to be written; several pictures make a grid
    #[arg(long, default_value = "painted.png", value_name = "FILE",
          value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Pictures for each prompt
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub count: usize,
    #[command(flatten)]
    pub painting: Painting,
}

/// How pictures are painted
#[derive(Args, Debug)]
pub struct Painting {
    /// Seed of the noise that the pictures begin as
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Steps from noise to picture [default: 20]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// How much what the text adds is exaggerated; at 1 not at all [default: 3]
    #[arg(long, value_name = "SCALE")]
    pub guidance: Option<f64>,
    /// How a step is made [default: dpm++]
    #[arg(long, value_enum)]
    pub solver: Option<PaintSolver>,
}

/// How a step from noise to picture is made
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum PaintSolver {
    /// Of order 1
    Euler,
    /// Of order 2, with two evaluations of the model
    Heun,
    /// DPM-Solver++, of order 2 with one evaluation
    #[value(name = "dpm++")]
    DpmSolver,
}

impl From<PaintSolver> for ferrata::flow::Solver {
    fn from(solver: PaintSolver) -> Self {
        match solver {
            PaintSolver::Euler => ferrata::flow::Solver::Euler,
            PaintSolver::Heun => ferrata::flow::Solver::Heun,
            PaintSolver::DpmSolver => ferrata::flow::Solver::DpmSolver,
        }
    }
}

/// Make or look at data
#[derive(Subcommand, Debug)]
pub enum Data {
    Scenes(Scenes),
}

/// Make captioned pictures of coloured shapes, or check such a picture
///
/// Writes train, val and held_out with pictures and captions.jsonl, and held_out.txt with the pairs
/// of words that occur in held_out only; with --classes instead a folder of pictures for each
/// class, in train and val.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata data scenes --out scenes --count 20000 --size 32 --seed 1
  ferrata data scenes --out shapes --count 8400 --classes shape-colour
  ferrata data scenes --check a.png 'a small red circle above a large blue square'

Exit codes of --check: 0 picture and caption agree, 1 they do not.")]
pub struct Scenes {
    /// Output folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath,
          required_unless_present = "check", conflicts_with = "check")]
    pub out: Option<PathBuf>,
    /// Pictures to learn from
    #[arg(long, default_value_t = 10_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// Width and height of the pictures in pixels
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub size: usize,
    /// The same seed gives the same pictures
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write pictures of one object into a folder for each shape, colour, or pair of both
    #[arg(long, value_enum)]
    pub classes: Option<SceneClasses>,
    /// Say whether a picture shows what a caption says, by its pixels alone
    #[arg(long, num_args = 2, value_names = ["IMAGE", "CAPTION"])]
    pub check: Option<Vec<String>>,
}

/// What the folders of scenes are named by
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum SceneClasses {
    /// Such as red-circle
    ShapeColour,
    /// Such as circle
    Shape,
    /// Such as red
    Colour,
}

/// Measure how good a model is on text or images, or at painting scenes
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata eval runs/shakespeare                      on the run's own validation part
  ferrata eval runs/shakespeare --text other.txt
  ferrata eval runs/images --images flowers/
  ferrata eval runs/scenes --prompts 500 --out scenes.png")]
pub struct Eval {
    /// Model directory, run folder or checkpoint
    #[arg(value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// Text files or folders; without them the validation part of the run that made the model
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub text: Vec<PathBuf>,
    /// Images in folders with the names of the model's classes; without them the validation part
    /// of the run that made the model
    #[arg(long, value_name = "DIR", conflicts_with_all = ["text", "context"],
          value_hint = ValueHint::DirPath)]
    pub images: Option<PathBuf>,
    /// Length of a window in tokens [default: the model's context]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Windows or images per batch
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// For text-to-image models: so many scenes with one object and so many with two are painted
    /// from captions with pairs of words that no training scene has, and checked
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub prompts: usize,
    /// For text-to-image models: PNG file for the first of these pictures
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub painting: Painting,
}

/// Evaluate a model on given tensors
///
/// Language models take input_ids, I64 [batch, sequence], image classifiers images, F32 [batch,
/// channels, height, width], and both give logits; with targets or labels, also their loss.
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
    /// Sequences or images per batch
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

/// Show where the time of a training step goes, kernel by kernel
///
/// Takes a few steps of a training run that leaves nothing behind, and shows for each kernel its
/// time and how near it comes to what this machine was measured to do: the larger of its
/// operations against the peak of their dtype and its bytes against the bandwidth of memory. A
/// kernel that finds its operands in a cache can exceed 100 %.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata profile
  ferrata profile recipes/shakespeare.toml --text tinyshakespeare.txt --set train.dtype=bf16
  ferrata profile recipes/gpt2-124m.toml --text notes/ --steps 3 --trace trace.json")]
pub struct Profile {
    #[command(flatten)]
    pub recipe: Recipe,
    /// Steps to measure, after two that do not count
    #[arg(long, short = 'n', default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Kernels to show
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub top: usize,
    /// Print everything as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write the course of the steps as a Chrome trace, which Perfetto opens
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,
}

/// Measure this machine, and how near kernels and training steps come to what it can do
///
/// Measures the peaks of arithmetic and the bandwidths of caches and memory, then matrix products,
/// elementwise kernels, reductions, attention, the optimiser and whole training steps: the median
/// time, the range of the middle half of the times, and the share of the limit, which is the larger
/// of operations against the peak of their dtype and bytes against the bandwidth of memory. Takes
/// about a minute; leave the machine alone meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata bench
  ferrata bench matmul-bf16 attention
  ferrata bench gpt2-124m --seconds 20 --json")]
pub struct Bench {
    /// Measure only the cases whose names hold one of these, and not the machine
    pub names: Vec<String>,
    /// Time for each case; three runs are always taken
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub seconds: f64,
    /// Threads; 0 means one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Find the fastest layout of a training step on a cluster, and predict it
///
/// Looks at all meshes that the devices form, and for each at microbatches, pipeline schedules, ZeRO
/// levels, and for each layer at what is computed again. What is given is kept as it is. Neither data
/// nor weights are read or made.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata plan llama-405b.toml --cluster clusters/dgx-h100.toml --devices 16384 --out plan.toml
  ferrata plan recipe.toml --cluster local --devices 2 --out plan.toml
  ferrata plan gpt-175b.toml --cluster clusters/dgx-a100.toml --set train.batch=1536 --devices 1536
      --mesh tensor=8,pipeline=8,data=24 --microbatch 1 --interleave 3 --recompute full --zero 1")]
pub struct Plan {
    /// Configuration file (TOML); a step has train.batch times train.accumulate sequences
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Cluster file (TOML), or `local`: this machine, measured as so many ranks share it, which takes
    /// some seconds
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cluster: PathBuf,
    /// Cluster file to be written: what was measured of this machine
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub save_cluster: Option<PathBuf>,
    /// Number of devices [default: those of the mesh, if it is given in full, or of the cluster; of
    /// this machine as many as it has cores]
    #[arg(long, value_name = "N")]
    pub devices: Option<usize>,
    /// Set a value of the configuration, such as train.batch=1536; can be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Sequences of a step, in place of those of the configuration
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Dtype of matrix products [default: bf16; on this machine that of the configuration]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<String>,
    /// Sizes of axes: tensor, context, data, expert, pipeline
    #[arg(long, value_name = "AXIS=N,…", value_delimiter = ',')]
    pub mesh: Vec<String>,
    /// Sequences that a replica works on at a time
    #[arg(long, value_name = "N")]
    pub microbatch: Option<usize>,
    /// Chunks of layers per pipeline stage
    #[arg(long, value_name = "N")]
    pub interleave: Option<usize>,
    /// What is computed again: none, selective or full
    #[arg(long, value_name = "WHAT")]
    pub recompute: Option<String>,
    /// What replicas share: 0 nothing, 1 optimiser state, 2 gradients too, 3 weights too
    #[arg(long, value_name = "LEVEL")]
    pub zero: Option<usize>,
    /// Whether activations between products are cut along positions [default: as it is faster; with
    /// --recompute full, no]
    #[arg(long, value_name = "BOOL")]
    pub sequence_parallel: Option<bool>,
    /// Pipeline schedule: gpipe, 1f1b or zero-bubble
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// Whether attention is one kernel [default: as the cluster file says]
    #[arg(long, value_name = "BOOL")]
    pub fused_attention: Option<bool>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Plan file to be written
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
}

/// Run a plan event by event, and a long training run with failures
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ferrata simulate plan.toml --trace timeline.json
  ferrata simulate plan.toml --days 54 --seed 3 --json")]
pub struct Simulate {
    /// Plan file
    #[arg(value_hint = ValueHint::FilePath)]
    pub plan: PathBuf,
    /// Configuration file of the model [default: the one that was planned]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Cluster file, which must be the one that was planned for
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cluster: Option<PathBuf>,
    /// Timeline to be written, for Perfetto
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,
    /// Length of the training run
    #[arg(long, default_value_t = 30.0, value_name = "DAYS")]
    pub days: f64,
    /// Seed of the failures
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
