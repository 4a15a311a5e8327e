//! A network with one hidden layer learns to tell two spirals apart.

use ferrata::nn::{Context, Linear};
use ferrata::{DType, Error, Key, Module, Tensor, compile, value_and_grad};

#[derive(Clone, Module)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn new(key: &Key) -> Self {
        Net { hidden: Linear::new(2, 32, &key.fold(0)), output: Linear::new(32, 2, &key.fold(1)) }
    }

    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let hidden = cx.scope("hidden", |cx| self.hidden.forward(x, cx)).tanh();
        cx.scope("output", |cx| self.output.forward(&hidden, cx))
    }
}

/// Points `[n, 2]` on two spirals, and the spiral of each, i64 `[n]`.
fn spirals(n: usize) -> (Tensor, Tensor) {
    let i = Tensor::arange(n);
    let class = i.remainder(2);
    let radius = (&i / 2).cast(DType::F32) / (n as f64 / 2.0) + 0.1;
    let angle = &radius * 4.0 + class.cast(DType::F32) * std::f64::consts::PI;
    (Tensor::stack(&[&(&radius * angle.cos()), &(&radius * angle.sin())], 1), class)
}

fn main() -> Result<(), Error> {
    let (x, y) = spirals(128);
    let step = compile(|(net, x, y): (Net, Tensor, Tensor)| {
        let loss = |net: &Net| net.forward(&x, &mut Context::eval()).cross_entropy(&y);
        let (loss, slope) = value_and_grad(loss)(&net);
        (ferrata::tree::zip(&net, &slope, |p, g| p - g), loss)
    });

    let mut net = Net::new(&Key::new(3));
    for i in 0..400 {
        let (next, loss) = step.call((net, x.clone(), y.clone()))?;
        net = next;
        if i % 100 == 0 {
            println!("step {i}: loss {:.3}", loss.item::<f32>()?);
        }
    }
    let right = net.forward(&x, &mut Context::eval()).argmax(-1).eq(&y);
    let accuracy = right.cast(DType::F32).mean(..).item::<f32>()?;
    println!("accuracy {accuracy:.3}");
    assert!(accuracy > 0.9);
    Ok(())
}

#[test]
fn runs() -> Result<(), Error> {
    main()
}
