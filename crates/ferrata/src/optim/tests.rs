use super::*;
use crate::tree;

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from(values)
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_vec().unwrap()
}

type Net = BTreeMap<String, Tensor>;

fn net(entries: &[(&str, Tensor)]) -> Net {
    entries.iter().map(|(name, t)| (name.to_string(), t.clone())).collect()
}

fn example() -> Net {
    net(&[
        ("embedding.weight", Tensor::from([[1.0f64, 2.0]])),
        ("output.bias", tensor(&[3.0])),
        ("output.weight", Tensor::from([[4.0f64], [5.0]])),
        ("steps", Tensor::from([7i64])),
    ])
}

fn zeros(net: &Net) -> Net {
    tree::map(net, Tensor::zeros_like)
}

#[test]
fn groups_have_their_own_settings() {
    // Without gradients only weight decay moves anything.
    let optimizer = Optimizer::new(Adam { decoupled: true, ..Adam::default() })
        .weight_decay(0.5)
        .group(Group::new(Select::Path("embedding.*".into())).frozen())
        .group(Group::new(Select::Path("output.w*".into())).lr_scale(2.0))
        .decay_matrices_only();
    let start = example();
    let state = optimizer.init(&start);
    let names: Vec<String> = tree::named_leaves(&state).into_iter().map(|(n, _)| n).collect();
    let want = ["output.bias.mean", "output.bias.mean_square", "output.weight.mean"];
    assert_eq!(names[..3], want);
    assert_eq!(names.len(), 4);
    let (end, _) = optimizer.update(&start, &zeros(&start), &state, &optimizer.rates(0, 0.1));
    assert_eq!(values(&end["embedding.weight"]), [1.0, 2.0]);
    assert_eq!(values(&end["output.bias"]), [3.0]);
    assert_eq!(values(&end["output.weight"]), [4.0 * 0.9, 5.0 * 0.9]);
    assert_eq!(end["steps"].to_vec::<i64>().unwrap(), [7]);
}

#[test]
fn a_group_may_have_another_rule() {
    let optimizer = Optimizer::new(Sgd::default())
        .group(Group::new(Select::AtLeastDims(2)).rule(Adam::default()));
    let start = example();
    let g = tree::map(&start, |t| t.cast(DType::F64).ones_like().cast(t.dtype()));
    let mut state = optimizer.init(&start);
    let mut p = start.clone();
    for step in 0..2 {
        (p, state) = optimizer.update(&p, &g, &state, &optimizer.rates(step, 0.25));
    }
    assert_eq!(values(&p["output.bias"]), [3.0 - 0.5]);
    // Adam goes on by the learning rate where gradients do not change: the bias corrections are
    // those of its own decays.
    let moved = values(&p["output.weight"]);
    assert!((moved[0] - 3.5).abs() < 1e-7 && (moved[1] - 4.5).abs() < 1e-7, "{moved:?}");
}

#[test]
fn steps_of_muon_are_nearly_orthogonal_in_half_precision_too() {
    let matrix = |key| Tensor::randn([24, 16], DType::F32, &crate::Key::new(key));
    let moved = |compute| {
        let optimizer = Optimizer::new(Muon { compute, ..Muon::default() });
        let (start, slope) = (net(&[("w", matrix(1))]), net(&[("w", matrix(2))]));
        let rates = optimizer.rates(0, 1.0);
        let (end, _) = optimizer.update(&start, &slope, &optimizer.init(&start), &rates);
        &start["w"] - &end["w"]
    };
    let (exact, half) = (moved(None), moved(Some(DType::BF16)));
    let size = |x: &Tensor| x.square().sum(..).sqrt().item::<f32>().unwrap();
    let error = size(&(&half - &exact)) / size(&exact);
    assert!(0.0 < error && error < 0.06, "{error}");
    // Five rounds bring singular values between 0.68 and 1.14; rows are more than columns.
    let squares = half.t().matmul(&half) / 1.5;
    let lengths = squares.cast(DType::F64).eigvalsh();
    let all = values(&lengths);
    assert!(all.iter().all(|square| (0.4..1.4).contains(square)), "{all:?}");
}

#[test]
fn what_does_not_fit_is_an_error() {
    let optimizer = Optimizer::new(Adam::default());
    let start = example();
    let rates = optimizer.rates(0, 0.1);
    let message = |(p, state): (Net, State)| {
        assert!(tree::leaves(&state).iter().all(|t| t.error().is_some()));
        p["steps"].error().unwrap().to_string()
    };
    let e = message(optimizer.update(&start, &zeros(&start), &State::default(), &rates));
    assert!(e.contains("the optimiser state has no `embedding.weight.mean`"), "{e}");
    let mut g = zeros(&start);
    g.insert("output.bias".into(), tensor(&[1.0, 2.0]));
    let e = message(optimizer.update(&start, &g, &optimizer.init(&start), &rates));
    assert!(e.contains("the gradient of `output.bias` is f64[2] instead of f64[1]"), "{e}");
    g.remove("output.bias");
    let e = message(optimizer.update(&start, &g, &optimizer.init(&start), &rates));
    assert!(e.contains("3 gradients for 4 parameters"), "{e}");
}

#[test]
fn clipping() {
    let g = vec![tensor(&[3.0, 0.0]), tensor(&[-4.0])];
    let (clipped, norm) = clip_by_norm(&g, 1.0);
    assert_eq!(values(&norm), [5.0]);
    let factor = 1.0 / (5.0 + 1e-6);
    assert_eq!(values(&clipped[0]), [3.0 * factor, 0.0]);
    assert_eq!(values(&clip_by_norm(&g, 6.0).0[1]), [-4.0]);
    assert_eq!(values(&clip_by_value(&g, 3.5)[1]), [-3.5]);
    let none = vec![tensor(&[0.0])];
    assert_eq!(values(&clip_by_norm(&none, 1.0).0[0]), [0.0]);
}

#[test]
fn microbatches_and_averages() {
    let (a, b) = (tensor(&[1.0, 5.0]), tensor(&[2.0, 7.0]));
    let sum = accumulate(Some(&accumulate(None, &a)), &b);
    assert_eq!(values(&average(&sum, 2)), [1.5, 6.0]);
    let mean = moving_average(&a, &b, &Tensor::from(0.75));
    assert_eq!(values(&mean), [1.25, 5.5]);
}

#[test]
fn the_update_is_compiled_once() {
    let optimizer = Optimizer::new(Adam::default()).weight_decay(0.1);
    let step = crate::compile(|(p, g, state, rates): (Tensor, Tensor, State, Rates)| {
        optimizer.update(&p, &g, &state, &rates)
    });
    let (mut p, g) = (tensor(&[1.0, -2.0]), tensor(&[0.1, 0.2]));
    let mut state = optimizer.init(&p);
    for i in 0..5 {
        let rates = optimizer.rates(i, 0.1 / (i + 1) as f64);
        (p, state) = step.call((p, g.clone(), state, rates)).unwrap();
    }
    assert_eq!(step.traces(), 1);
}
