//! Flow matching against closed forms.

use ferrata::flow::{
    Mixture, Sampler, Solver, Times, between, guided, log_likelihood, loss, towards,
};
use ferrata::nn::{Context, Linear};
use ferrata::optim::{Adam, Optimizer, Schedule};
use ferrata::{DType, Key, Module, Result, Tensor, compile, value_and_grad};

/// Three clusters in the plane, of different widths and weights.
fn clusters(dtype: DType) -> Mixture {
    let means = [vec![-1.5, 0.5], vec![1.0, 1.5], vec![0.5, -1.0]];
    Mixture::new(&means, &[0.3, 0.5, 0.4], &[0.2, 0.5, 0.3], dtype).unwrap()
}

fn sampled(field: &Mixture, start: &Tensor, solver: Solver, steps: usize) -> Tensor {
    let sampler = Sampler { solver, steps, shift: 1.0 };
    sampler.sample(start, |x, t| Ok(field.velocity(x, t))).unwrap()
}

fn rms(x: &Tensor) -> f64 {
    x.cast(DType::F64).square().mean(..).sqrt().item::<f64>().unwrap()
}

/// The order of each solver, from its errors at some steps and at twice as many. The error of
/// DPM-Solver++ falls as `log(n) / n²` does, because its own measure of steps is infinite at both
/// ends.
fn check_orders(field: &Mixture, start: &Tensor, exact: &Tensor) {
    let logarithm = (256f64.ln() / 128f64.ln()).log2();
    let solvers = [
        (Solver::Euler, 1.0, 0.02),
        (Solver::Heun, 2.0, 0.05),
        (Solver::DpmSolver, 2.0 - logarithm, 0.1),
    ];
    for (solver, wanted, tolerance) in solvers {
        let error = |steps| rms(&(sampled(field, start, solver, steps) - exact));
        let found = (error(128) / error(256)).log2();
        println!("{solver:?}: order {found:.3}");
        assert!((found - wanted).abs() < tolerance, "{solver:?} has order {found}");
    }
}

#[test]
fn solvers_have_their_orders_on_a_normal_distribution() {
    // From one normal distribution to another the flow only shifts and scales.
    let field = Mixture::new(&[vec![1.0, -2.0]], &[0.4], &[1.0], DType::F64).unwrap();
    let start = Tensor::randn([64, 2], DType::F64, &Key::new(1));
    let exact = &start * 0.4 + Tensor::from([1.0f64, -2.0]);
    check_orders(&field, &start, &exact);
}

#[test]
fn solvers_have_their_orders_on_a_mixture() {
    let field = clusters(DType::F64);
    let start = Tensor::randn([64, 2], DType::F64, &Key::new(2));
    let exact = sampled(&field, &start, Solver::Heun, 2048);
    check_orders(&field, &start, &exact);
}

#[test]
fn at_equal_cost_the_multistep_solver_is_the_most_accurate() {
    let field = clusters(DType::F64);
    let start = Tensor::randn([64, 2], DType::F64, &Key::new(3));
    let exact = sampled(&field, &start, Solver::Heun, 1024);
    let error = |solver, steps| rms(&(sampled(&field, &start, solver, steps) - &exact));
    let (euler, heun) = (error(Solver::Euler, 16), error(Solver::Heun, 8));
    let dpm = error(Solver::DpmSolver, 16);
    println!("16 velocities: Euler {euler:.2e}, Heun {heun:.2e}, DPM-Solver++ {dpm:.2e}");
    assert!(dpm < heun && heun < euler);
}

#[test]
fn a_shifted_grid_leads_to_the_same_place() {
    let field = clusters(DType::F64);
    let start = Tensor::randn([32, 2], DType::F64, &Key::new(4));
    let exact = sampled(&field, &start, Solver::Heun, 1024);
    for solver in [Solver::Euler, Solver::Heun, Solver::DpmSolver] {
        let sampler = Sampler { solver, steps: 512, shift: 3.0 };
        let x = sampler.sample(&start, |x, t| Ok(field.velocity(x, t))).unwrap();
        assert!(rms(&(x - &exact)) < 0.01);
    }
    // As Stable Diffusion 3 has it, whose time 1 is noise: s u / (1 + (s - 1) u).
    let times = Sampler { steps: 4, shift: 3.0, ..Sampler::default() }.times();
    let wanted = [0.0, 0.1, 0.25, 0.5, 1.0];
    assert!(times.iter().zip(wanted).all(|(t, w)| (t - w).abs() < 1e-12), "{times:?}");
}

#[test]
fn samplers_refuse_what_they_cannot_follow() {
    let x = Tensor::zeros([2, 3], DType::F32);
    let sampled = |sampler: Sampler, v: Tensor| match sampler.sample(&x, |_, _| Ok(v.clone())) {
        Ok(_) => panic!("it was followed"),
        Err(error) => error.to_string(),
    };
    let usual = Sampler::default();
    assert!(sampled(Sampler { steps: 0, ..usual }, x.clone()).contains("0 steps"));
    assert!(sampled(Sampler { shift: 0.0, ..usual }, x.clone()).contains("shift"));
    assert!(sampled(usual, x.sum(0)).contains("the velocity of f32[2,3] is f32[3]"));
    assert!(sampled(usual, x.reshape([7])).contains("reshape"));
}

#[test]
fn the_velocity_is_the_mean_of_the_paths_through_a_point() {
    // Many paths, of which those count that pass nearby, against the closed form.
    let field = clusters(DType::F32);
    let (noise, data) = (Tensor::randn([200_000, 2], DType::F32, &Key::new(5)), {
        field.sample(200_000, &Key::new(6))
    });
    let at = Tensor::from([[0.2f32, 0.4], [-0.6, 0.1], [0.5, -0.5]]);
    for t in [0.2f32, 0.5, 0.8] {
        let x = between(&noise, &data, &Tensor::from(vec![t; 200_000]));
        for i in 0..3 {
            let distance = (&x - at.at(i)).square().sum(1);
            let weight = (distance / -(2.0 * 0.1f64.powi(2))).exp().unsqueeze(1);
            let mean = (&weight * (&data - &noise)).sum(0) / weight.sum(..);
            let v = field.velocity(&at.at(i).unsqueeze(0), &Tensor::from([t]));
            let error = rms(&(mean - v.at(0)));
            println!("at {i}, {t}: {error:.3} of {:.3}", rms(&v));
            assert!(error < 0.1, "at {i}, {t}: {error}");
        }
    }
}

#[test]
fn expected_data_tell_the_velocity() -> Result<()> {
    // For normal data of mean 1 and standard deviation 2 the data are expected where the line of
    // regression says.
    let field = Mixture::new(&[vec![1.0]], &[2.0], &[1.0], DType::F64)?;
    let x = Tensor::from([[-1.5f64], [0.0], [2.0], [0.5]]);
    let t = Tensor::from([0.0f64, 0.3, 0.6, 0.94]);
    let at = t.unsqueeze(1);
    let expected = 1.0 + &at * 4.0 * (&x - &at) / ((1.0 - &at).square() + at.square() * 4.0);
    let error = rms(&(towards(&expected, &x, &t) - field.velocity(&x, &t)));
    assert!(error < 1e-12, "{error}");

    // Near the data the time that is left counts for 0.05, and half precision is widened.
    let near = towards(
        &Tensor::from([[1.5f32], [1.5]]).cast(DType::BF16),
        &Tensor::from([[1.0f32], [1.0]]),
        &Tensor::from([0.99f32, 1.0]),
    );
    assert_eq!(near.to_vec::<f32>()?, [10.0, 10.0]);
    Ok(())
}

#[test]
fn likelihood_by_the_flow_is_the_density() {
    let normal = Mixture::new(&[vec![0.5, 1.0, -1.0]], &[0.7], &[2.0], DType::F64).unwrap();
    let x = normal.sample(32, &Key::new(7));
    let density = -(((&x - Tensor::from([0.5f64, 1.0, -1.0])) / 0.7).square().sum(1)) * 0.5
        - 1.5 * std::f64::consts::TAU.ln()
        - 3.0 * 0.7f64.ln();
    assert!(rms(&(normal.log_density(&x) - &density)) < 1e-12);
    let found = log_likelihood(&x, 40, |x, t| normal.velocity(x, t)).unwrap();
    assert!(rms(&(found - density)) < 1e-7);

    let field = clusters(DType::F64);
    // Also where there are no data.
    let far = Tensor::randn([32, 2], DType::F64, &Key::new(9)) * 2.0;
    let x = Tensor::concat(&[&field.sample(32, &Key::new(8)), &far], 0);
    let density = field.log_density(&x);
    let error = |steps| {
        let found = log_likelihood(&x, steps, |x, t| field.velocity(x, t)).unwrap();
        (found - &density).abs().max(..).item::<f64>().unwrap()
    };
    let (coarse, fine) = (error(50), error(100));
    println!("largest error in nats: {coarse:.2e} in 50 steps, {fine:.2e} in 100");
    assert!(fine < 1e-5 && (coarse / fine).log2() > 3.5, "{coarse} {fine}");
}

#[test]
fn densities_of_the_flow_sum_to_one() {
    let field = clusters(DType::F64);
    let side = Tensor::linspace(-4.0, 4.0, 65, DType::F64);
    let grid = [side.unsqueeze(1).expand([65, 65]), side.unsqueeze(0).expand([65, 65])];
    let grid = Tensor::stack(&[&grid[0], &grid[1]], 2).reshape((-1, 2));
    let density = log_likelihood(&grid, 30, |x, t| field.velocity(x, t)).unwrap().exp();
    let total = density.sum(..).item::<f64>().unwrap() * (8.0f64 / 64.0).powi(2);
    assert!((total - 1.0).abs() < 1e-3, "{total}");
}

#[test]
fn guidance_is_a_line_through_both_velocities() -> Result<()> {
    let (with, without) = (Tensor::from([3.0f32, 1.0]), Tensor::from([1.0f32, 2.0]));
    assert_eq!(guided(&with, &without, 0.0).to_vec::<f32>()?, [1.0, 2.0]);
    assert_eq!(guided(&with, &without, 1.0).to_vec::<f32>()?, [3.0, 1.0]);
    assert_eq!(guided(&with, &without, 4.0).to_vec::<f32>()?, [9.0, -2.0]);
    Ok(())
}

#[test]
fn solvers_have_names_for_configurations() {
    let named = |name: &str| serde_json::from_str::<Solver>(&format!("\"{name}\"")).ok();
    let found = ["euler", "heun", "dpm++", "rk4"].map(named);
    assert_eq!(found, [Some(Solver::Euler), Some(Solver::Heun), Some(Solver::DpmSolver), None]);
}

/// Points of the plane and times become velocities.
#[derive(Clone, Module)]
struct Net {
    layers: Vec<Linear>,
}

impl Net {
    fn new(key: &Key) -> Self {
        let sizes = [2 + 1 + 2 * 3, 64, 64, 2];
        let layer = |i: usize| Linear::new(sizes[i], sizes[i + 1], &key.fold(i as u32));
        Net { layers: (0..3).map(layer).collect() }
    }

    fn forward(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let t = t.unsqueeze(1);
        let angles = &t * Tensor::from([1.0f32, 2.0, 4.0]) * std::f64::consts::PI;
        let mut x = Tensor::concat(&[x, &t, &angles.cos(), &angles.sin()], 1);
        let mut cx = Context::eval();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &mut cx);
            if i + 1 < self.layers.len() {
                x = x.silu();
            }
        }
        x
    }
}

#[test]
fn a_network_learns_the_velocity_of_a_mixture() -> Result<()> {
    const STEPS: u64 = 3000;
    let field = clusters(DType::F32);
    let optimizer = Optimizer::new(Adam::default());
    let schedule = Schedule::cosine(2e-2, 0, STEPS, 0.0);
    let step = compile(|(net, state, rates, words): (Net, _, _, Tensor)| {
        let key = Key::from_tensor(&words);
        let (noise, data) =
            (Tensor::randn([1024, 2], DType::F32, &key.fold(0)), field.sample(1024, &key.fold(1)));
        let t = Times::Uniform.draw(1024, &key.fold(2));
        let x = between(&noise, &data, &t);
        let cost = |net: &Net| loss(&net.forward(&x, &t), &noise, &data);
        let (cost, slope) = value_and_grad(cost)(&net);
        let (net, state) = optimizer.update(&net, &slope, &state, &rates);
        (net, state, cost)
    });
    let key = Key::new(10);
    let mut net = Net::new(&key.fold(0));
    let mut state = optimizer.init(&net);
    for i in 0..STEPS {
        let rates = optimizer.rates(i, schedule.at(i));
        let words = key.fold(1 + i as u32).tensor();
        (net, state, _) = step.call((net, state, rates, words))?;
    }

    // Where the paths go, at all times.
    let (noise, data) =
        (Tensor::randn([8192, 2], DType::F32, &Key::new(11)), field.sample(8192, &Key::new(12)));
    let t = Times::Uniform.draw(8192, &Key::new(13));
    let x = between(&noise, &data, &t);
    let exact = field.velocity(&x, &t);
    let error = rms(&(net.forward(&x, &t) - &exact)) / rms(&exact);
    println!("relative error of the learned velocity: {error:.4}");
    assert!(error < 0.06, "{error}");

    // Its density is that of the data, but for its error: E log p/q is a distance, never negative.
    let x = field.sample(2048, &Key::new(14));
    let learned = log_likelihood(&x, 24, |x, t| net.forward(x, t))?;
    let distance = (field.log_density(&x) - learned).mean(..).item::<f32>()?;
    println!("E log p(data) - log q(data): {distance:.4} nats");
    assert!(distance > -0.01 && distance < 0.03, "{distance}");
    Ok(())
}
