//! Runs of pipelines as timelines that Perfetto opens.

use serde_json::{Value, json};

use crate::pipeline::{Run, Work};

/// The Chrome trace of a run: a process for each stage, with a counter of the bytes that it keeps.
pub fn perfetto(run: &Run, kept: &[Vec<f64>]) -> Value {
    let mut events = Vec::new();
    let micro = |seconds: f64| seconds * 1e6;
    let mut now: Vec<f64> = vec![0.0; kept.len()];
    for stage in 0..kept.len() {
        let name = format!("stage {stage}");
        events
            .push(json!({"ph": "M", "pid": stage, "name": "process_name", "args": {"name": name}}));
    }
    for event in &run.events {
        let (stage, task) = (event.stage, event.task);
        let work = match task.work {
            Work::Forward => "forward",
            Work::Backward => "backward",
            Work::Gradient => "gradient of weights",
        };
        events.push(json!({
            "ph": "X", "pid": stage, "tid": 0,
            "name": format!("{work} {}", task.microbatch), "cat": work,
            "ts": micro(event.begin), "dur": micro(event.end - event.begin),
            "args": {"microbatch": task.microbatch, "chunk": task.chunk},
        }));
        let bytes = kept[stage].get(task.chunk).copied().unwrap_or_default();
        let (time, change) = match task.work {
            Work::Forward => (event.begin, bytes),
            Work::Backward => (event.end, -bytes),
            Work::Gradient => continue,
        };
        now[stage] += change;
        events.push(json!({
            "ph": "C", "pid": stage, "name": "kept", "ts": micro(time),
            "args": {"bytes": now[stage]},
        }));
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms"})
}
