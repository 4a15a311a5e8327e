//! The gradient of every example of a batch on its own: `vmap` of `grad`.

use ferrata::nn::{Context, Linear};
use ferrata::{DType, Error, Key, Tensor, grad, vmap};

fn main() -> Result<(), Error> {
    let key = Key::new(1);
    let model = Linear::new(4, 3, &key.fold(0));
    let inputs = Tensor::randn([8, 4], DType::F32, &key.fold(1));
    let labels = Tensor::arange(8).remainder(3);

    let loss = |model: &Linear, x: &Tensor, y: &Tensor| {
        model.forward(x, &mut Context::eval()).unsqueeze(0).cross_entropy(&y.unsqueeze(0))
    };
    let each = vmap(|(x, y): &(Tensor, Tensor)| grad(|m: &Linear| loss(m, x, y))(&model))(&(
        inputs.clone(),
        labels.clone(),
    ));
    assert_eq!(each.weight.shape(), [8, 3, 4]);
    let norms = each.weight.norm(2.0, [1, 2]);
    println!("gradient norms of the examples: {:.3?}", norms.to_vec::<f32>()?);

    // Their mean is the gradient of the mean loss.
    let whole =
        grad(|m: &Linear| m.forward(&inputs, &mut Context::eval()).cross_entropy(&labels))(&model);
    let difference = (each.weight.mean(0) - whole.weight).abs().max(..).item::<f32>()?;
    assert!(difference < 1e-6, "{difference}");
    Ok(())
}

#[test]
fn runs() -> Result<(), Error> {
    main()
}
