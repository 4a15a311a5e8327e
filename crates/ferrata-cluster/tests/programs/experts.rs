//! A small cluster, and a model with experts.

use ferrata_cluster::model::{Cut, Exchange, Kept, Loop, Operation, Product, Weights, Work};
use ferrata_cluster::{Cluster, Model, describe};

use super::programs::Gpt;

/// Two nodes of four small accelerators each.
pub fn small_cluster(memory: f64) -> Cluster {
    let text = format!(
        "name = \"small\"\ndevices = 8\n\
         [accelerator]\nname = \"small\"\npeak = {{ bf16 = 100e12 }}\nmemory = {memory:?}\nbandwidth = 1e12\n\
         [[network]]\nname = \"inner\"\nsize = 4\nbandwidth = 100e9\nlatency = 2e-6\n\
         [[network]]\nname = \"outer\"\nbandwidth = 10e9\nlatency = 5e-6\n"
    );
    Cluster::parse(&text).unwrap()
}

/// A model of 700 G parameters, most of them in experts: 61 layers with 256 experts of which each
/// token meets eight. Its attention is that of a GPT; its feed-forward part is given by hand.
pub fn expert_model(cluster: &Cluster) -> Model {
    let (hidden, inner, experts, active, sequence) = (7168, 2048, 256usize, 8, 4096);
    let gpt = Gpt { layers: 61, hidden, heads: 128, sequence, vocabulary: 129_280 };
    let mut model = describe(&gpt.loss(), &cluster.software).unwrap();
    let (h, f, s) = (hidden as f64, inner as f64, sequence as f64);
    let tokens = s * active as f64 / experts as f64;
    let product = |name: &str, n: f64, k: f64, cut: Loop| Operation {
        name: name.to_owned(),
        work: Work::Product(Product {
            batch: experts as f64,
            m: tokens,
            n,
            k,
            positions: Loop::M,
            cut: Some(cut),
            experts: true,
            gradient: false,
        }),
        again: false,
    };
    let gradient = |name: &str, m: f64, n: f64, cut: Loop| Operation {
        name: name.to_owned(),
        work: Work::Product(Product {
            batch: experts as f64,
            m,
            n,
            k: tokens,
            positions: Loop::K,
            cut: Some(cut),
            experts: true,
            gradient: true,
        }),
        again: false,
    };
    let routed = s * active as f64 * h * 2.0;
    let exchange = || Operation {
        name: "mlp".to_owned(),
        work: Work::Exchange { kind: Exchange::Experts, bytes: routed, hideable: false },
        again: false,
    };
    let part = &mut model.layers[0].part;
    // The dense feed-forward part goes.
    let dense = |operation: &Operation| match operation.work {
        Work::Product(p) => p.n == 4.0 * h || p.k == 4.0 * h || p.m == 4.0 * h,
        _ => false,
    };
    part.forward.retain(|operation| !dense(operation));
    part.backward.retain(|operation| !dense(operation));
    part.weights.retain(|weights| weights.elements < 4.0 * h * h);
    part.kept.retain(|kept| kept.bytes != s * 4.0 * h * 2.0);
    part.forward.push(exchange());
    for name in ["gate", "up"] {
        part.forward.push(product(name, f, h, Loop::N));
    }
    part.forward.push(product("down", h, f, Loop::K));
    part.forward.push(exchange());
    part.backward.push(exchange());
    for (name, n, k, cut) in
        [("down", f, h, Loop::N), ("up", h, f, Loop::K), ("gate", h, f, Loop::K)]
    {
        part.backward.push(product(name, n, k, cut));
    }
    for name in ["gate", "up"] {
        part.backward.push(gradient(name, h, f, Loop::N));
    }
    part.backward.push(gradient("down", f, h, Loop::M));
    part.backward.push(exchange());
    for name in ["gate", "up", "down"] {
        let elements = experts as f64 * h * f;
        part.weights.push(Weights { name: format!("h.0.{name}"), elements, cut: Cut::Expert });
    }
    let kept = s * active as f64 * (h + 3.0 * f) * 2.0;
    part.kept.push(Kept {
        name: "mlp".to_owned(),
        bytes: kept,
        cut: Cut::Tensor,
        quadratic: false,
    });
    model.experts = experts;
    model
}
