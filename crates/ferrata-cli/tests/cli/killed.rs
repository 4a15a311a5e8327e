//! A run that is killed at random moments, also while it writes a checkpoint, and resumed each
//! time, is the uninterrupted one to the last bit. `FERRATA_KILLS` sets how often it is killed.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

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
