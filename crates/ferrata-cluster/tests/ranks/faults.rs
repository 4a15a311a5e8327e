//! Ranks that are killed, stopped or slowed down at random moments, also while one of them writes
//! a checkpoint, and supervisors that are killed: the job ends with the weights of an undisturbed
//! run, and whoever failed was named. `FERRATA_FAULTS` sets how many there are.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Disturbed, command, scratch, seeded, weights};

/// What is done to a job.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Kill,
    Stop,
    KillWhileSaving,
    StopWhileSaving,
    KillSupervisor,
    KillSupervisorWhileSaving,
}

const KINDS: [Kind; 6] = [
    Kind::Kill,
    Kind::Stop,
    Kind::KillWhileSaving,
    Kind::KillSupervisor,
    Kind::StopWhileSaving,
    Kind::KillSupervisorWhileSaving,
];

fn signal(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {pid}");
}

#[test]
fn a_disturbed_job_ends_like_an_undisturbed_one() {
    let faults: usize = std::env::var("FERRATA_FAULTS").map_or(6, |count| count.parse().unwrap());
    let folder = scratch("faults");
    let whole: Vec<_> = (2..=4)
        .map(|ranks| {
            let out = folder.join(format!("whole-{ranks}"));
            Disturbed::start(&out, ranks, &[]).finish();
            weights(&out)
        })
        .collect();
    let mut noticed = Vec::new();
    let mut random = seeded(7);
    for number in 0..faults {
        let kind = KINDS[number % KINDS.len()];
        let ranks = 2 + number % 3;
        let out = folder.join(format!("{number}"));
        let mut job = Disturbed::start(&out, ranks, &[]);
        let saving =
            [Kind::KillWhileSaving, Kind::StopWhileSaving, Kind::KillSupervisorWhileSaving];
        let pids: Vec<u32> = (0..ranks).map(|rank| job.pid(rank)).collect();
        job.await_step(2 + random(60));
        let rank = match saving.contains(&kind) {
            true => {
                job.await_line("saving");
                std::thread::sleep(Duration::from_micros(random(4000)));
                0
            }
            false => {
                std::thread::sleep(Duration::from_micros(random(20_000)));
                random(ranks as u64) as usize
            }
        };
        let pid = pids[rank];
        let start = Instant::now();
        match kind {
            Kind::Kill | Kind::KillWhileSaving => signal("-KILL", pid),
            Kind::Stop | Kind::StopWhileSaving => signal("-STOP", pid),
            Kind::KillSupervisor | Kind::KillSupervisorWhileSaving => {
                job.kill();
                job = Disturbed::start(&out, ranks, &["resume"]);
            }
        }
        if matches!(kind, Kind::Kill | Kind::Stop | Kind::KillWhileSaving | Kind::StopWhileSaving) {
            job.await_line(&format!("launch: rank {rank} "));
            noticed.push((start.elapsed(), kind));
        }
        job.finish();
        assert!(weights(&out) == whole[ranks - 2], "{kind:?} of rank {rank} of {ranks}, {number}");
    }
    noticed.sort_by_key(|(time, _)| *time);
    for wanted in [Kind::Kill, Kind::Stop] {
        let times: Vec<Duration> = noticed
            .iter()
            .filter(|(_, kind)| match wanted {
                Kind::Kill => matches!(kind, Kind::Kill | Kind::KillWhileSaving),
                _ => matches!(kind, Kind::Stop | Kind::StopWhileSaving),
            })
            .map(|(time, _)| *time)
            .collect();
        if let Some(&worst) = times.last() {
            let median = times[times.len() / 2];
            println!("{wanted:?}: {} noticed, median {median:.2?}, worst {worst:.2?}", times.len());
            assert!(worst < Duration::from_secs(10), "{wanted:?} was noticed after {worst:?}");
        }
    }
}

#[test]
fn a_rank_that_hangs_or_crawls_is_named() {
    let folder = scratch("stragglers");
    for (what, said) in [("hang=1", "hangs"), ("crawl=2", "crawls")] {
        let mut job = Disturbed::start(&folder.join(what), 3, &[what]);
        let line = job.await_line("launch: rank");
        let rank = &what[what.len() - 1..];
        assert!(line.contains(&format!("launch: rank {rank} cpu")), "{line}");
        assert!(line.contains(said) && line.contains("in scope layers.0"), "{line}");
        job.finish();
    }
}

#[test]
fn the_others_go_on_without_a_rank_that_fails_again_and_again() {
    let folder = scratch("fewer");
    let mut job = Disturbed::start(&folder.join("out"), 3, &["broken=2", "min_ranks=2"]);
    job.await_line("starting 3 ranks again");
    job.await_line("starting 2 ranks again");
    job.finish();
}

#[test]
fn an_error_of_a_rank_ends_the_job() {
    let folder = scratch("error");
    let mut job = Disturbed::start(&folder.join("out"), 2, &["fail=1"]);
    let line = job.await_line("error: rank 1 cpu");
    assert!(line.contains("ended with exit code 101"), "{line}");
    assert_eq!(job.wait(), Some(101));
}

#[test]
fn a_job_that_is_asked_to_stop_stops_and_continues() {
    let folder = scratch("stopped");
    let (whole, parts) = (folder.join("whole"), folder.join("parts"));
    Disturbed::start(&whole, 2, &[]).finish();
    let mut job = Disturbed::start(&parts, 2, &["stop_at=50"]);
    job.await_line("outcome: Stopped");
    job.finish();
    Disturbed::start(&parts, 2, &["resume"]).finish();
    assert!(weights(&whole) == weights(&parts));
}

/// A supervisor that waits for ranks at a port of this machine, and their environment.
fn waiting(out: &Path, ranks: usize) -> (Disturbed, Vec<(&'static str, String)>) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut supervisor =
        command("supervisor", out, ranks, &["with=none", &format!("listen={address}")]);
    let environment = vec![
        ("FERRATA_JOB", "secret".to_owned()),
        ("FERRATA_SUPERVISOR", address),
        ("FERRATA_RANKS", ranks.to_string()),
    ];
    let job = Disturbed::from(supervisor.env("FERRATA_JOB", "secret"));
    (job, environment)
}

#[test]
fn ranks_that_somebody_else_starts_come_over_the_network() {
    let folder = scratch("external");
    let (whole, out) = (folder.join("whole"), folder.join("out"));
    Disturbed::start(&whole, 2, &[]).finish();
    let (job, environment) = waiting(&out, 2);
    let ranks: Vec<_> = (0..2)
        .map(|rank| {
            let mut command = command("rank", &out, 2, &[]);
            command.envs(environment.clone()).env("JOB_COMPLETION_INDEX", rank.to_string());
            command.spawn().unwrap()
        })
        .collect();
    for mut rank in ranks {
        assert!(rank.wait().unwrap().success());
    }
    job.finish();
    assert!(weights(&whole) == weights(&out));
}

#[test]
fn ranks_of_other_versions_are_refused_by_name() {
    let (mut job, environment) = waiting(&scratch("versions"), 2);
    let address = &environment[1].1;
    let mut line = loop {
        if let Ok(line) = TcpStream::connect(address) {
            break line;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let hello = r#"{"protocol":1,"version":"9.9.9","job":"secret","rank":1,"host":"node7"}"#;
    writeln!(line, "{hello}").unwrap();
    let said = job.await_line("error:");
    assert!(said.contains("rank 1 on node7 is ferrata 9.9.9"), "{said}");
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("install one version on all hosts"), "{answer}");
    job.wait();
}
