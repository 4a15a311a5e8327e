//! `ferrata launch`

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use ferrata::train::{Error, Result};
use ferrata_cluster::manifest::{self, Shape};
use ferrata_cluster::{Backend, Job, Limits, News, Outcome, Starter, supervise};

use super::plan::plan_file;
use crate::args::{Cli, Command, Launch, LaunchBackend, LaunchWith, LaunchWrite, Train};
use crate::interrupt;
use crate::progress::say;

/// Runs the ranks to their end, or prints a job script.
pub fn run(args: Launch) -> Result<()> {
    let ranks = ranks(&args)?;
    if let Some(scheduler) = args.write {
        return write(&args, ranks, scheduler);
    }
    let (stop, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    interrupt::on_signal(&stop)?;
    if args.requeue {
        interrupt::on_time_limit(&over, &stop)?;
    }
    let outcome = supervise(&job(&args, ranks)?, &stop, &mut |news| match &news {
        News::Line { error: false, .. } => say!("{news}"),
        // A reader that has gone away is no error.
        _ => drop(writeln!(std::io::stderr(), "{news}")),
    })?;
    match outcome {
        Outcome::Stopped if over.load(Ordering::Relaxed) => requeue(),
        Outcome::Stopped | Outcome::Finished => Ok(()),
    }
}

/// How many ranks there are: as many as the command asks for, or as the plan that it trains by has.
fn ranks(args: &Launch) -> Result<usize> {
    let words = [OsString::from("ferrata")].into_iter().chain(args.command.iter().cloned());
    let command = Cli::try_parse_from(words).ok().filter(|_| args.program.is_none());
    let plan = match command.map(|cli| cli.command) {
        Some(Command::Train(Train { plan: Some(path), .. })) => Some(plan_file(&path)?),
        _ => None,
    };
    let given = args.ranks.map(|ranks| ranks as usize);
    let least = args.min_ranks.map(|ranks| ranks as usize);
    match (given, plan.map(|plan| plan.devices)) {
        (ranks, Some(planned)) => match ranks.into_iter().chain(least).find(|&n| n != planned) {
            None => Ok(planned),
            Some(ranks) => Err(Error::new(
                format!("the plan is for {planned} ranks, not {ranks}"),
                "plan for as many, or leave --ranks and --min-ranks out",
            )),
        },
        (Some(ranks), None) => Ok(ranks),
        (None, None) => Err(Error::new(
            "how many ranks there are is not said",
            "pass --ranks N, or a command that is `train --plan FILE`",
        )),
    }
}

fn job(args: &Launch, ranks: usize) -> Result<Job> {
    let seconds = |name: &str, value: f64| {
        Duration::try_from_secs_f64(value)
            .map_err(|_| Error::new(format!("--{name} is {value}"), "it has to be a time"))
    };
    let mut job = Job {
        arguments: args.command.clone(),
        min_ranks: args.min_ranks.map_or(ranks, |least| least as usize),
        starter: match args.with {
            LaunchWith::Local => Starter::Local,
            LaunchWith::Mpirun => Starter::Mpirun,
            LaunchWith::Srun => Starter::Srun,
            LaunchWith::None => Starter::External,
        },
        backend: match args.backend {
            LaunchBackend::Sockets => Backend::Sockets,
            LaunchBackend::Mpi => Backend::Mpi,
        },
        listen: args.listen.clone(),
        pass: args.pass.clone(),
        restarts: args.restarts,
        limits: Limits {
            silence: seconds("silence", args.silence)?,
            start: seconds("start-time", args.start_time)?,
            ..Limits::default()
        },
        ..Job::local(ranks)
    };
    if let Some(program) = &args.program {
        job.program = program.clone();
    }
    Ok(job)
}

fn write(args: &Launch, ranks: usize, scheduler: LaunchWrite) -> Result<()> {
    let count = |number: u32| number as usize;
    let shape = Shape {
        name: args.shape.name.clone(),
        ranks,
        ranks_per_node: args.shape.per_node.map_or(ranks, count),
        cores: args.shape.cores.map(count),
        memory: args.shape.memory.clone(),
        time: args.shape.time.clone(),
        image: args.shape.image.clone(),
    };
    let command: Vec<String> =
        args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let text = match scheduler {
        LaunchWrite::Slurm => manifest::slurm(&shape, &command),
        LaunchWrite::Kubernetes => {
            manifest::kubernetes(&shape, &command, &ferrata_cluster::secret()?)
        }
    };
    say!("{}", text.trim_end());
    Ok(())
}

/// Lets Slurm start this job again.
fn requeue() -> Result<()> {
    let job = env::var("SLURM_JOB_ID")
        .map_err(|_| Error::new("--requeue is for jobs of Slurm", "leave it out"))?;
    let status = process::Command::new("scontrol").args(["requeue", &job]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::new(format!("job {job} was not queued again: {status}"), "")),
        Err(error) => Err(Error::new(format!("cannot start scontrol: {error}"), "")),
    }
}
