//! A small job for the tests: this test program itself, run as a supervisor and as its ranks.
//!
//! The ranks descend on a quadratic together, each with its own part of the data, and rank 0 saves
//! the weights every few steps.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use ferrata_cluster::{Backend, Job, Starter, communicator_from_environment, supervise};
use ferrata_ir::Communicator;
use ferrata_ir::DType;
use ferrata_ir::communicator::Report;
use ferrata_ir::primitive::ReduceKind;

/// Enough that the writing of a checkpoint takes a few milliseconds.
const WEIGHTS: usize = 1 << 19;
const STEPS: u64 = 120;
const SAVED_EVERY: u64 = 4;

/// An empty folder for one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may not exist.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Numbers below what it is asked for.
pub fn seeded(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// The weights that a job ended with.
pub fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("final")).unwrap()
}

/// The value of `name=value` among the arguments of this process.
fn argument(name: &str) -> Option<String> {
    let prefix = format!("{name}=");
    std::env::args().find_map(|text| text.strip_prefix(&prefix).map(str::to_owned))
}

fn number(name: &str) -> Option<usize> {
    argument(name).map(|text| text.parse().unwrap())
}

/// This program as a supervisor or as a rank.
pub fn command(role: &str, out: &Path, ranks: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&format!("common::as_{role}"), "--exact", "--nocapture", "--quiet"])
        .args([format!("role={role}"), format!("out={}", out.display()), format!("ranks={ranks}")])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A running job, whose supervisor is a process of its own.
pub struct Disturbed {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// The processes of the ranks, as far as they have said so.
    pids: BTreeMap<usize, u32>,
    seen: String,
}

impl Disturbed {
    /// Starts it in the folder `out`, with `name=value` arguments.
    pub fn start(out: &Path, ranks: usize, arguments: &[&str]) -> Disturbed {
        Disturbed::from(&mut command("supervisor", out, ranks, arguments))
    }

    /// Starts what [`command`] gives.
    pub fn from(command: &mut Command) -> Disturbed {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Disturbed { child, lines, pids: BTreeMap::new(), seen: String::new() }
    }

    fn next(&mut self) -> Option<String> {
        let line = self.lines.next()?.unwrap();
        self.seen += &line;
        self.seen.push('\n');
        if let Some((label, pid)) = line.split_once("] pid ") {
            let rank = label.strip_prefix("[rank ").unwrap().split(' ').next().unwrap();
            self.pids.insert(rank.parse().unwrap(), pid.parse().unwrap());
        }
        Some(line)
    }

    /// The next line that has `text` in it.
    pub fn await_line(&mut self, text: &str) -> String {
        loop {
            match self.next() {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("it never says {text:?}:\n{}", self.seen),
            }
        }
    }

    /// The process of a rank.
    pub fn pid(&mut self, rank: usize) -> u32 {
        while !self.pids.contains_key(&rank) {
            assert!(self.next().is_some(), "rank {rank} never says its process:\n{}", self.seen);
        }
        self.pids[&rank]
    }

    /// Waits until a step has begun.
    pub fn await_step(&mut self, step: u64) {
        self.await_line(&format!("] step {step}"));
    }

    /// Kills the supervisor alone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit code, once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        while self.next().is_some() {}
        self.child.wait().unwrap().code()
    }

    /// Waits for the good end.
    pub fn finish(mut self) {
        assert_eq!(self.wait(), Some(0), "it says:\n{}", self.seen);
    }
}

#[test]
fn as_supervisor() {
    if argument("role").as_deref() != Some("supervisor") {
        return;
    }
    let ranks = number("ranks").unwrap();
    let mut arguments = std::env::args_os().skip(1).collect::<Vec<_>>();
    for argument in &mut arguments {
        match argument.to_str() {
            Some("common::as_supervisor") => *argument = "common::as_rank".into(),
            Some("role=supervisor") => *argument = "role=rank".into(),
            _ => {}
        }
    }
    let listen = argument("listen");
    let job = Job {
        starter: match argument("with").as_deref() {
            Some("srun") => Starter::Srun,
            Some("mpirun") => Starter::Mpirun,
            Some(_) => Starter::External,
            None => Starter::Local,
        },
        backend: if argument("backend").is_some() { Backend::Mpi } else { Backend::Sockets },
        pass: argument("pass")
            .iter()
            .flat_map(|list| list.split(','))
            .map(OsString::from)
            .collect(),
        listen,
        program: std::env::current_exe().unwrap(),
        arguments,
        resume: "resume".into(),
        min_ranks: number("min_ranks").unwrap_or(ranks),
        ..Job::local(ranks)
    };
    let stop = AtomicBool::new(false);
    let stop_at = argument("stop_at").map(|step| format!("] step {step}"));
    let outcome = supervise(&job, &stop, &mut |news| {
        let news = news.to_string();
        if stop_at.as_ref().is_some_and(|step| news.ends_with(step)) {
            stop.store(true, Ordering::Relaxed);
        }
        println!("{news}");
    });
    match outcome {
        Ok(outcome) => println!("outcome: {outcome:?}"),
        Err(error) => {
            println!("error: {error}");
            panic!("the job failed");
        }
    }
}

#[test]
fn as_rank() {
    if argument("role").as_deref() == Some("rank") {
        descend();
    }
}

fn descend() {
    let ranks = communicator_from_environment().unwrap().unwrap();
    println!("pid {}", std::process::id());
    let resumes = std::env::args().any(|argument| argument == "resume");
    let out = PathBuf::from(argument("out").unwrap());
    let me = |name: &str| !resumes && number(name) == Some(ranks.rank());
    let (mut step, mut weights) = match load(&out) {
        Some(state) if resumes => state,
        _ => (0, vec![0.0; WEIGHTS]),
    };
    ranks.report(Report::Scope("layers.0"));
    while step < STEPS {
        step += 1;
        ranks.report(Report::Step(step));
        if ranks.rank() == 0 {
            println!("step {step}");
        }
        sleep(Duration::from_millis(match me("crawl") {
            true => 400,
            false => 3,
        }));
        if step == 30 {
            while me("hang") {
                std::hint::spin_loop();
            }
            assert!(!me("fail"), "there is no more data");
        }
        if number("broken") == Some(ranks.rank()) {
            // As if the machine were broken.
            std::process::abort();
        }
        descend_once(&*ranks, step, &mut weights);
        if step % SAVED_EVERY == 0 && ranks.rank() == 0 {
            ranks.report(Report::Other("checkpoint"));
            println!("saving");
            save(&out, "checkpoint", step, &weights);
        }
    }
    if ranks.rank() == 0 {
        save(&out, "final", step, &weights);
    }
    ranks.report(Report::Done);
}

/// One step towards values that each rank knows a part of.
fn descend_once(ranks: &dyn Communicator, step: u64, weights: &mut [f32]) {
    let group: Vec<usize> = (0..ranks.size()).collect();
    let gradient = weights.iter().enumerate().map(|(i, weight)| {
        let seen = (i as u64 * 31 + step * 7 + ranks.rank() as u64 * 13) % 101;
        weight - seen as f32 / 101.0
    });
    let mut bytes: Vec<u8> = gradient.flat_map(f32::to_le_bytes).collect();
    ranks.all_reduce(&group, ReduceKind::Sum, DType::F32, &mut bytes).unwrap();
    for (weight, sum) in weights.iter_mut().zip(bytes.chunks_exact(4)) {
        *weight -= 0.1 * f32::from_le_bytes(sum.try_into().unwrap());
    }
}

fn save(out: &Path, name: &str, step: u64, weights: &[f32]) {
    fs::create_dir_all(out).unwrap();
    let mut bytes = step.to_le_bytes().to_vec();
    bytes.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
    let half = out.join(format!("{name}.partial"));
    fs::write(&half, bytes).unwrap();
    fs::rename(half, out.join(name)).unwrap();
}

fn load(out: &Path) -> Option<(u64, Vec<f32>)> {
    let bytes = fs::read(out.join("checkpoint")).ok()?;
    let (step, weights) = bytes.split_first_chunk()?;
    let weights = weights.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()));
    Some((u64::from_le_bytes(*step), weights.collect()))
}
