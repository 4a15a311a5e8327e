//! Plans as JSON, for programs.

use serde_json::{Value, json};

use super::{Found, Plan};
use crate::layout::Axis;
use crate::model::Model;

impl Plan {
    /// Step time, speed, memory and layout.
    pub fn json(&self, model: &Model) -> Value {
        let prediction = &self.prediction;
        let sent: serde_json::Map<String, Value> = Axis::ALL
            .iter()
            .zip(prediction.sent)
            .map(|(axis, bytes)| (axis.name().to_owned(), json!(bytes)))
            .collect();
        json!({
            "step_seconds": prediction.seconds,
            "model_tflops_per_device": prediction.flops / 1e12,
            "utilisation": prediction.utilisation,
            "memory_bytes_per_rank": prediction.peak(),
            "fits": self.fits,
            "parameters": model.parameters(),
            "devices": self.layout.mesh.devices(),
            "layout": self.layout,
            "layers_per_chunk": self.chunks,
            "prediction": prediction,
            "bytes_sent_per_step": sent,
        })
    }
}

impl Found {
    /// The best plan, and why others lost.
    pub fn json(&self, model: &Model) -> Value {
        let mut value = self.best.json(model);
        let other = |(plan, reason): &(Plan, String)| {
            json!({
                "mesh": plan.layout.mesh,
                "step_seconds": plan.prediction.seconds,
                "reason": reason,
            })
        };
        value["others"] = self.others.iter().map(other).collect();
        value["layouts"] = json!(self.looked_at);
        value["planning_seconds"] = json!(self.elapsed.as_secs_f64());
        value
    }
}
