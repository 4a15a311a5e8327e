//! A composite with its own derivative: rounding whose gradient passes straight through, as
//! networks with quantised weights use it.

use ferrata::{DType, Error, Key, Tensor, custom, value_and_grad};

fn main() -> Result<(), Error> {
    let rounded = custom(
        "straight_through_round",
        |x: &Tensor| (x.round(), ()),
        |_: &(), dy: &Tensor| dy.clone(),
    );
    let key = Key::new(5);
    let x = Tensor::randn([64, 4], DType::F32, &key);
    let target = Tensor::from([2.0f32, -1.0, 0.0, 3.0]);
    let y = x.matmul(&target);

    let mut weight = Tensor::zeros([4], DType::F32);
    for _ in 0..60 {
        let loss = |w: &Tensor| (x.matmul(&rounded(w)) - &y).square().mean(..);
        let (_, slope) = value_and_grad(loss)(&weight);
        weight -= slope * 0.1;
        weight.eval()?;
    }
    // Plain rounding has the gradient 0: the weights would still be 0.
    println!("learned {:?}", weight.round().to_vec::<f32>()?);
    assert_eq!(weight.round().to_vec::<f32>()?, target.to_vec::<f32>()?);
    Ok(())
}

#[test]
fn runs() -> Result<(), Error> {
    main()
}
