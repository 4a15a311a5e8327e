//! `ferrata bench`

use std::time::Duration;

use ferrata::Device;
use ferrata::bench::{self, Machine, Measured, Report};
use ferrata::train::{Error, Result, in_bytes};

use crate::args::Bench;
use crate::progress::{count, say};

/// Measures the machine and its cases, and prints each as it is done.
pub fn run(args: Bench) -> Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        let given = args.seconds;
        return Err(Error::new(format!("--seconds is {given}"), "give some seconds, such as 1"));
    }
    let cases = bench::select(&args.names)?;
    let device = Device::cpu_with_threads(args.threads)?;
    ferrata::set_default_device(&device);
    let machine = Machine::measure(&device, args.names.is_empty());
    if !args.json {
        introduce(&machine);
    }
    let mut report = Report { machine, cases: Vec::new() };
    for case in cases {
        let measured = case.measure(Duration::from_secs_f64(args.seconds))?;
        if !args.json {
            say!("{}", line(&measured));
        }
        report.cases.push(measured);
    }
    if args.json {
        say!("{}", report.to_json());
    }
    Ok(())
}

fn introduce(machine: &Machine) {
    say!("{}", machine.device);
    if let Some(peaks) = &machine.peaks {
        for (dtype, rate) in &peaks.operations {
            say!("  {dtype:<8} {:>9}FLOP/s", count(*rate));
        }
    }
    for level in &machine.levels {
        say!(
            "  {:<8} read {:>8}B/s  copy {:>8}B/s  write {:>8}B/s  ({} per thread)",
            level.name,
            count(level.speed.read),
            count(level.speed.copy),
            count(level.speed.write),
            in_bytes(level.bytes as u64)
        );
    }
    say!("{}", row(["case", "median", "spread", "FLOP/s", "B/s", "of limit"]));
}

fn line(case: &Measured) -> String {
    let rate = |amount: f64| match amount {
        0.0 => "-".to_owned(),
        amount => count(amount / case.seconds),
    };
    let limit = case.of_limit.map(|share| format!("{:.1}% {}", 100.0 * share, case.bound));
    row([
        &case.name,
        &time(case.seconds),
        &format!("{:.1}%", 100.0 * case.spread),
        &rate(case.work.flops),
        &rate(case.work.read + case.work.written),
        &limit.unwrap_or_default(),
    ])
}

fn row(cells: [&str; 6]) -> String {
    let [name, median, spread, flops, bytes, limit] = cells;
    format!("{name:<28} {median:>10} {spread:>7} {flops:>9} {bytes:>9} {limit:>15}")
}

/// A time with its unit: `12.3 ms`.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.3} s"),
        s if s >= 1e-3 => format!("{:.3} ms", 1e3 * s),
        s => format!("{:.2} us", 1e6 * s),
    }
}
