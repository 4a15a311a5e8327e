//! A run that is killed at random moments, also while it writes a checkpoint, and resumed each
//! time, is the uninterrupted one to the last bit. `FERRATA_KILLS` sets how often it is killed.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{ferrata, losses, scratch, small_run, succeed, weights};

#[test]
fn a_killed_run_continues_bit_for_bit() {
    let kills: u32 = std::env::var("FERRATA_KILLS").map_or(3, |n| n.parse().unwrap());
    let folder = scratch("killed");
    small_run(&folder);
    // A checkpoint every few steps, so that many kills fall into the writing of one.
    let steps = format!("train.steps={}", 200 + 60 * kills);
    let set =
        ["--set", &steps, "--set", "train.checkpoint_every=3", "--set", "train.eval_every=50"];
    let train = |out: &'static str| [&["train", "small.toml", "--out", out], &set[..]].concat();
    let start = Instant::now();
    succeed(&folder, &train("whole"));
    let whole_time = start.elapsed();
    let resume = [&train("parts")[..], &["--resume"]].concat();
    let mut state = 12_345u32;
    let mut killed = 0;
    for _ in 0..kills {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Long enough to get on a little, and often short enough to die in the middle.
        let share = 0.02 + 0.5 * f64::from(state >> 8) / f64::from(1 << 24) / f64::from(kills);
        let mut child = ferrata(&folder, &resume).stdout(Stdio::null()).spawn().unwrap();
        sleep(whole_time.mul_f64(share));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(killed > 0, "every run was over before it could be killed");
    succeed(&folder, &resume);
    let (whole, parts) = (folder.join("whole"), folder.join("parts"));
    assert_eq!(losses(&whole), losses(&parts));
    assert!(weights(&whole) == weights(&parts), "the final weights differ");
}

/// What is done to a job of several ranks.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillRank,
    StopRank,
    KillLauncher,
}

/// Ranks, and how they lie.
const LAYOUTS: [(&str, &[&str]); 4] = [
    ("2", &["--mesh", "data=2", "--set", "parallel.zero=1"]),
    ("2", &["--mesh", "pipeline=2"]),
    ("3", &["--mesh", "data=3", "--set", "parallel.zero=2"]),
    ("4", &["--mesh", "pipeline=2,data=2", "--set", "parallel.zero=1"]),
];

/// The ranks that a launcher has started.
fn ranks_of(launcher: u32) -> Vec<String> {
    let list = format!("/proc/{launcher}/task/{launcher}/children");
    let children = std::fs::read_to_string(list).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

/// Ranks are killed and stopped, and their launcher killed, at random moments, also while they
/// write a checkpoint: the run ends with the weights of an undisturbed one.
#[test]
fn disturbed_ranks_end_like_undisturbed_ones() {
    let faults: usize = std::env::var("FERRATA_KILLS").map_or(2, |n| n.parse().unwrap());
    let folder = scratch("disturbed");
    small_run(&folder);
    let job = |layout: usize, out: &str, more: &[&str]| {
        let (ranks, mesh) = LAYOUTS[layout];
        let train = ["launch", "--ranks", ranks, "--", "train", "small.toml", "--out", out];
        let set = ["--set", "model.layers=2", "--set", "train.accumulate=2"];
        let steps = ["--set", "train.steps=160", "--set", "train.checkpoint_every=4"];
        let every = ["--set", "train.eval_every=0", "--set", "train.log_every=1"];
        let all = [&train[..], mesh, &set, &steps, &every, more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let spawn = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        ferrata(&folder, &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let whole = |layout: usize| format!("whole-{layout}");
    for layout in 0..LAYOUTS.len().min(faults) {
        assert!(spawn(job(layout, &whole(layout), &[])).wait().unwrap().success());
    }
    let mut state = 4_321u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for number in 0..faults {
        let layout = number % LAYOUTS.len();
        let fault = match number % 5 {
            1 => Fault::StopRank,
            3 => Fault::KillLauncher,
            _ => Fault::KillRank,
        };
        let out = format!("run-{number}");
        let mut launcher = spawn(job(layout, &out, &[]));
        let at = 2 + u64::from(random(120));
        let metrics = folder.join(&out).join("metrics.jsonl");
        let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        while (steps() as u64) < at {
            assert!(launcher.try_wait().unwrap().is_none(), "{number}: over before step {at}");
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(u64::from(random(20_000))));
        let ranks = ranks_of(launcher.id());
        let Some(rank) = ranks.get(random(ranks.len().max(1) as u32) as usize) else {
            panic!("{number}: the launcher has no ranks");
        };
        let signal = |name: &str| {
            let sent = std::process::Command::new("kill").args([name, rank]).status().unwrap();
            assert!(sent.success(), "{number}: kill {name} {rank}");
        };
        match fault {
            Fault::KillRank => signal("-KILL"),
            Fault::StopRank => signal("-STOP"),
            Fault::KillLauncher => {
                launcher.kill().unwrap();
                launcher.wait().unwrap();
                launcher = spawn(job(layout, &out, &["--resume"]));
            }
        }
        let ended = launcher.wait().unwrap();
        assert!(ended.success(), "{number}: {fault:?} with {:?}: {ended}", LAYOUTS[layout]);
        let (whole, parts) = (folder.join(whole(layout)), folder.join(&out));
        assert!(
            weights(&whole) == weights(&parts),
            "{number}: {fault:?} with {:?}: the final weights differ",
            LAYOUTS[layout]
        );
    }
}
