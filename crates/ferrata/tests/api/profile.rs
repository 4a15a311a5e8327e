use ferrata::profile::Recorder;
use ferrata::{Attention, DType, Device, Tensor, compile, grad, scope};

/// Two steps on a device of its own, whose kernels nobody else runs.
#[test]
fn a_profile_shows_kernels_scopes_and_costs() {
    let device = Device::cpu_with_threads(2).unwrap();
    let x = Tensor::ones([96, 64], DType::F32).to_device(&device);
    let w = Tensor::ones([64, 80], DType::F32).to_device(&device);
    let step = compile(|(x, w): (Tensor, Tensor)| {
        let layers = (0..2).map(|i| scope(&format!("layers.{i}.product"), || x.matmul(&(&w + i))));
        layers.reduce(|a, b| a * b).unwrap()
    });
    let run = || step.call((x.clone(), w.clone())).unwrap();
    run();
    let mut recorder = Recorder::start(&device);
    for _ in 0..2 {
        run();
        recorder.step();
    }
    run();
    let profile = recorder.finish();
    assert_eq!(profile.steps.len(), 2);
    let products: Vec<_> = profile.kernels.iter().filter(|k| k.class == "contract").collect();
    let runs: f64 = products.iter().map(|k| k.count).sum();
    assert_eq!(runs, 2.0, "{:#?}", profile.kernels);
    for product in &products {
        assert_eq!(product.scope, "layers.*.product");
        assert!(product.kernel.starts_with("96x80x64 f32->f32"), "{}", product.kernel);
        assert!(product.flops >= 2.0 * 96.0 * 80.0 * 64.0);
        assert!(product.seconds > 0.0 && product.of_limit.unwrap() > 0.0);
        assert!((0.0..=1.0).contains(&product.idle), "{}", product.idle);
    }
    let kernels: f64 = profile.kernels.iter().map(|k| k.seconds).sum();
    let outside: f64 = profile.outside.iter().map(|(_, seconds)| seconds).sum();
    assert!((kernels + outside - profile.step_seconds()).abs() < 1e-9);
    assert!(profile.outside.iter().all(|(_, seconds)| *seconds >= -1e-9));
    assert!(profile.limits.is_some_and(|limits| limits.memory.read > 1e8));
}

#[test]
fn the_trace_has_rows_for_threads_and_a_counter_for_memory() {
    let device = Device::cpu_with_threads(2).unwrap();
    let x = Tensor::ones([600, 300], DType::F32).to_device(&device);
    x.eval().unwrap();
    let mut recorder = Recorder::start(&device);
    scope("here", || x.matmul(&x.t())).eval().unwrap();
    recorder.step();
    let trace = recorder.finish().trace();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let rows: Vec<&str> = (events.iter())
        .filter(|e| e["ph"] == "M" && e["name"] == "thread_name")
        .map(|e| e["args"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(rows[..3], ["steps", "program", "thread 0"]);
    let kernel = events.iter().find(|e| e["cat"] == "contract" && e["tid"] == 1).unwrap();
    assert_eq!(kernel["ph"], "X");
    assert_eq!(kernel["args"]["scope"], "here");
    assert_eq!(kernel["args"]["flops"], 2.0 * 600.0 * 600.0 * 300.0);
    assert!(kernel["dur"].as_f64().unwrap() > 0.0);
    let end = |e: &serde_json::Value| e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap();
    let busy: Vec<_> = events.iter().filter(|e| e["cat"] == "contract" && e["tid"] != 1).collect();
    assert!(!busy.is_empty());
    for span in busy {
        assert!(span["ts"].as_f64() >= kernel["ts"].as_f64() && end(span) <= end(kernel) + 1e-3);
    }
    let memory = events.iter().find(|e| e["ph"] == "C" && e["name"] == "memory").unwrap();
    assert!(memory["args"]["bytes"].as_f64().unwrap() >= 4.0 * (600.0 * 300.0 + 600.0 * 600.0));
}

/// The plan of a device that claims attention counts its products, forward and backward.
#[test]
fn attention_costs_its_products() {
    let causal = Attention { causal: true, ..Attention::default() };
    let f = compile(move |(q, k, v): (Tensor, Tensor, Tensor)| {
        grad(|q: &Tensor| q.attention(&k, &v, &causal).sum(..))(&q)
    });
    let x = || Tensor::ones([2, 3, 32, 16], DType::F32);
    let executable = f.planned(&(x(), x(), x()), false).unwrap().executable;
    let plan = executable.plan().unwrap();
    let products = |name: &str| -> f64 {
        let kernels = plan.kernels.iter().filter(|k| k.shape().starts_with(name));
        kernels.map(|k| k.cost().flops).sum()
    };
    let pairs = (2 * 3 * 32 * 33 / 2) as f64;
    assert_eq!(products("attention_forward"), 2.0 * pairs * (16.0 + 16.0));
    assert_eq!(products("attention_backward"), 2.0 * pairs * (5.0 * 16.0));
    assert!(plan.cost().flops >= 2.0 * pairs * 7.0 * 16.0);
}
