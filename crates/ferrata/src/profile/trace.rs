//! The course of a profile as a Chrome trace: JSON that Perfetto opens.

use serde_json::{Value, json};

use super::record::{Span, Timeline};

/// Rows: steps and the recording thread above the threads of the device.
const STEPS: usize = 0;
const PROGRAM: usize = 1;
const THREADS: usize = 2;

/// The whole trace.
pub(super) fn chrome(timeline: &Timeline) -> String {
    let mut events = vec![name("process_name", 0, "ferrata")];
    events.push(name("thread_name", STEPS, "steps"));
    events.push(name("thread_name", PROGRAM, "program"));
    for thread in 0..timeline.threads() {
        events.push(name("thread_name", THREADS + thread, &format!("thread {thread}")));
    }
    for (number, &step) in timeline.steps.iter().enumerate() {
        events.push(complete(STEPS, &format!("step {number}"), "step", step, json!({})));
    }
    for &(what, span) in &timeline.host {
        events.push(complete(PROGRAM, what, "host", span, json!({})));
    }
    for &span in &timeline.programs {
        events.push(complete(PROGRAM, "program", "program", span, json!({})));
    }
    for &(span, bytes) in &timeline.copies {
        events.push(complete(PROGRAM, "copy", "copy", span, json!({ "bytes": bytes })));
    }
    for run in &timeline.runs {
        let source = &timeline.sources[run.source];
        let class = source.kernel.class();
        let title = match source.scope.is_empty() {
            true => format!("{class} {}", source.kernel.shape()),
            false => format!("{class} {}", source.scope),
        };
        let arguments = json!({
            "kernel": source.kernel.shape(),
            "scope": &*run.scope,
            "flops": source.cost.flops,
            "bytes": source.cost.bytes(),
            "flops_per_second": source.cost.flops / run.span.seconds(),
            "bytes_per_second": source.cost.bytes() / run.span.seconds(),
        });
        events.push(complete(PROGRAM, &title, class, run.span, arguments.clone()));
        for &(thread, span) in &run.busy {
            events.push(complete(THREADS + thread, &title, class, span, json!({})));
        }
        events.push(json!({
            "ph": "C", "name": "memory", "pid": 0, "tid": PROGRAM,
            "ts": micros(run.span.end), "args": { "bytes": run.memory },
        }));
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
}

fn micros(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e3
}

fn name(what: &str, row: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": 0, "tid": row, "args": { "name": name } })
}

fn complete(row: usize, name: &str, category: &str, span: Span, arguments: Value) -> Value {
    json!({
        "ph": "X", "name": name, "cat": category, "pid": 0, "tid": row,
        "ts": micros(span.start), "dur": micros(span.seconds()), "args": arguments,
    })
}
