//! Progress of training on the standard output: one line that is rewritten on a terminal, plain
//! lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::commands::profile;
use ferrata::inspect::Inspection;
use ferrata::train::{Event, StepRecord, in_bytes, process_memory};

/// Writes what happens during training.
pub struct Progress<W: Write> {
    out: W,
    terminal: bool,
    steps: u64,
    last: Option<Instant>,
    /// Whether the line of the cursor holds progress.
    line_open: bool,
}

/// The updating line is not rewritten more often than this.
const REWRITE: Duration = Duration::from_millis(100);
/// Plain lines come at most this often.
const PLAIN: Duration = Duration::from_secs(2);
/// So many kernels of a profile are shown.
const PROFILED: usize = 30;
/// Used where the width of the terminal is not known.
const WIDTH: usize = 80;

impl Progress<io::Stdout> {
    /// Progress of a run of `steps` steps on the standard output.
    pub fn stdout(steps: u64) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Progress::new(out, terminal, steps)
    }
}

impl<W: Write> Progress<W> {
    fn new(out: W, terminal: bool, steps: u64) -> Self {
        Progress { out, terminal, steps, last: None, line_open: false }
    }

    /// Shows an event. A reader that has gone away does not end the run.
    pub fn show(&mut self, event: &Event) {
        let _ = self.write(event);
    }

    /// Ends the updating line, if there is one.
    pub fn close(&mut self) {
        let _ = self.end_line();
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Note(note) => self.line(&format!("note: {note}")),
            Event::Resumed { step, path } => {
                self.line(&format!("continuing after step {step} from {}", path.display()))
            }
            Event::Step { record, remaining } => self.step(record, *remaining),
            Event::Evaluation { record, best, report } => {
                let mark = if *best { " (best so far)" } else { "" };
                let (step, loss) = (record.step, record.validation_loss);
                let scores = record.scores.iter().map(|(name, x)| format!("  {}", score(name, *x)));
                let scores: String = scores.collect();
                self.line(&format!("step {step}: validation loss {loss:.4}{scores}{mark}"))?;
                report.iter().try_for_each(|line| self.line(&format!("  {}", printable(line))))
            }
            Event::Sample { step, text } => {
                self.line(&format!("sample after step {step}:"))?;
                for line in text.lines() {
                    self.line(&format!("  | {}", printable(line)))?;
                }
                Ok(())
            }
            Event::Picture { step, path } => {
                self.line(&format!("step {step}: samples in {}", path.display()))
            }
            Event::Profile { profile, path } => {
                profile::lines(profile, PROFILED).iter().try_for_each(|line| self.line(line))?;
                self.line(&format!("profile: {}, and its trace beside it", path.display()))
            }
            Event::Checkpoint { step, path } => {
                self.line(&format!("step {step}: saved {}", path.display()))
            }
        }
    }

    fn step(&mut self, record: &StepRecord, remaining: Duration) -> io::Result<()> {
        let pause = if self.terminal { REWRITE } else { PLAIN };
        let first_or_last = record.step == 1 || record.step == self.steps;
        if !first_or_last && self.last.is_some_and(|last| last.elapsed() < pause) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let text = status(record, self.steps, remaining);
        if !self.terminal {
            return self.line(&text);
        }
        let fitting: String = text.chars().take(width().saturating_sub(1)).collect();
        self.line_open = true;
        write!(self.out, "\r\x1b[2K{fitting}")?;
        self.out.flush()
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        if self.line_open {
            self.line_open = false;
            write!(self.out, "\r\x1b[2K")?;
        }
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.line_open {
            self.line_open = false;
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

/// Prints a line on the standard output, with the arguments of `println!`; a reader that has gone
/// away is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

/// Control characters in a sample must not reach the terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn status(record: &StepRecord, steps: u64, remaining: Duration) -> String {
    // Waiting that nobody would notice is not shown.
    let waited = match record.data_wait {
        wait if wait >= 1e-3 => format!("  waited {:.0} ms for data", 1e3 * wait),
        _ => String::new(),
    };
    let memory = process_memory().map(|bytes| format!("  {}", in_bytes(bytes)));
    format!(
        "step {}/{steps}  loss {:.4}  {} {}/s{}{}  {} left",
        record.step,
        record.loss,
        count(record.per_second),
        record.unit,
        waited,
        memory.unwrap_or_default(),
        duration(remaining),
    )
}

/// A measure with its name: `top1 98.50 %`, `accepted_one 80.00 %`, `damaged 3`.
pub fn score(name: &str, value: f64) -> String {
    match name.starts_with("top") || name.starts_with("accepted") {
        true => format!("{name} {:.2} %", 100.0 * value),
        false => format!("{name} {}", count(value)),
    }
}

/// A count with three or so digits: `850`, `12.3k`, `4.5M`.
pub fn count(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

/// Says what the backward pass computes again, what that gives and what it costs.
pub fn show_recomputation(inspection: &Inspection) {
    let Some(again) = inspection.recomputation() else { return };
    if again.values.is_empty() {
        say!("computed again in the backward pass: nothing");
        return;
    }
    let (without, with) = (again.peak_without as u64, again.peak as u64);
    let share = 100.0 * again.flops / inspection.flops();
    say!(
        "computed again in the backward pass: {} values of each layer, {}FLOP more ({share:.2} %), \
         {} instead of {} at the peak",
        again.values.len(),
        count(again.flops),
        in_bytes(with),
        in_bytes(without)
    );
    for (origin, ty, layers) in &again.values {
        say!("  {} {ty}, {layers} times", origin.scope);
    }
}

/// A time as people write it: `42s`, `3m 05s`, `2h 10m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(unix)]
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.map_or(WIDTH, |size| usize::from(size.ws_col).max(20))
}

#[cfg(not(unix))]
fn width() -> usize {
    WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Event {
        let record = StepRecord {
            step,
            loss: 2.5,
            grad_norm: 1.0,
            lr: 1e-3,
            unit: "tokens",
            per_second: 12_345.0,
            data_wait: 0.0,
        };
        Event::Step { record, remaining: Duration::from_secs(65) }
    }

    #[test]
    fn piped_progress_is_plain_lines() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, false, 3);
        let sample = Event::Sample { step: 2, text: "fn a\x1b[2J\n}".to_owned() };
        for event in [step(1), step(2), sample, step(3)] {
            progress.show(&event);
        }
        progress.close();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "the second step comes too soon: {text}");
        assert!(lines[0].starts_with("step 1/3  loss 2.5000  12.3k tokens/s"), "{text}");
        assert!(lines[0].ends_with("1m 05s left"), "{text}");
        assert!(!text.contains(['\r', '\x1b']), "{text:?}");
    }

    #[test]
    fn a_terminal_has_one_line_that_is_rewritten() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, true, 3);
        progress.show(&step(1));
        progress.show(&Event::Note("a note".to_owned()));
        progress.show(&step(3));
        progress.close();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 2, "{text:?}");
        assert!(text.contains("\r\x1b[2Knote: a note\n"), "{text:?}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([count(12.0), count(9999.0), count(4.5e6)], ["12", "9999", "4.5M"]);
        let times = [42, 185, 7800].map(Duration::from_secs).map(duration);
        assert_eq!(times, ["42s", "3m 05s", "2h 10m"]);
    }
}
