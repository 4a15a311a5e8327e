//! Fits a line to noisy points by gradient descent.

use ferrata::{DType, Error, Key, Tensor, Tree, compile, value_and_grad};

#[derive(Clone, Tree)]
struct Line {
    slope: Tensor,
    offset: Tensor,
}

impl Line {
    fn at(&self, x: &Tensor) -> Tensor {
        &self.slope * x + &self.offset
    }
}

fn main() -> Result<(), Error> {
    let key = Key::new(7);
    let x = Tensor::randn([256], DType::F32, &key.fold(0));
    let noise = Tensor::randn([256], DType::F32, &key.fold(1));
    let y = &x * 3.0 - 1.0 + noise * 0.1;

    let step = compile(|(line, x, y): (Line, Tensor, Tensor)| {
        let loss = |line: &Line| (line.at(&x) - &y).square().mean(..);
        let (loss, slope) = value_and_grad(loss)(&line);
        (ferrata::tree::zip(&line, &slope, |p, g| p - g * 0.1), loss)
    });

    let mut line = Line { slope: Tensor::from(0.0f32), offset: Tensor::from(0.0f32) };
    let mut loss = Tensor::from(f32::INFINITY);
    for _ in 0..100 {
        (line, loss) = step.call((line, x.clone(), y.clone()))?;
    }
    let (slope, offset) = (line.slope.item::<f32>()?, line.offset.item::<f32>()?);
    println!("y = {slope:.3} x + {offset:.3}, loss {:.4}", loss.item::<f32>()?);
    assert!((slope - 3.0).abs() < 0.05 && (offset + 1.0).abs() < 0.05);
    Ok(())
}

#[test]
fn runs() -> Result<(), Error> {
    main()
}
