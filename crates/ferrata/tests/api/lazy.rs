use ferrata::{DType, Device, NewDim, Tensor, keep, step};

#[test]
fn a_long_history_is_evaluated_and_dropped_without_deep_recursion() {
    let mut x = Tensor::from(0.0f64);
    for _ in 0..25_000 {
        x += 1.0;
    }
    assert_eq!(x.item::<f64>().unwrap(), 25_000.0);
    let mut y = Tensor::from(0.0f64);
    for _ in 0..9_000 {
        y = &y + 1.0;
    }
    drop(y);
}

#[test]
fn a_wide_history_counts_every_node_once() {
    // 2^60 paths, but few nodes.
    let mut x = Tensor::from(1.0f64);
    for _ in 0..60 {
        x = &x + &x;
    }
    assert_eq!(x.item::<f64>().unwrap(), 2f64.powi(60));
}

#[test]
fn held_intermediates_and_siblings_are_computed_with_the_rest() {
    let x = Tensor::from([3.0f32, 1.0, 2.0]);
    let y = x.exp();
    let (values, indices) = y.sort(0, false);
    values.eval().unwrap();
    for t in [&y, &values, &indices] {
        assert!(!format!("{t:?}").contains("not yet"), "{t:?}");
    }
    assert_eq!(indices.to_vec::<i64>().unwrap(), [1, 2, 0]);
}

#[test]
fn numbers_take_the_dtype_of_the_tensor() {
    let x = Tensor::from([1i64, 2]);
    assert_eq!((&x * 3).to_vec::<i64>().unwrap(), [3, 6]);
    assert_eq!((10 - &x).to_vec::<i64>().unwrap(), [9, 8]);
    assert_eq!((&x + 2.0).to_vec::<i64>().unwrap(), [3, 4]);
    let h = Tensor::from([1.0f32, 2.0]).cast(DType::BF16);
    assert_eq!((1.0 / &h).dtype(), DType::BF16);
    let mut z = x;
    z += 1;
    z *= 2;
    assert_eq!(z.to_vec::<i64>().unwrap(), [4, 6]);
    let mask = Tensor::from([true, false]);
    assert_eq!((!&mask | true).to_vec::<bool>().unwrap(), [true, true]);
    assert_eq!(mask.select(1.5, &h).dtype(), DType::BF16);
}

#[test]
fn indexing_follows_python() {
    let x = Tensor::arange(24).reshape([2, 3, 4]);
    let check = |t: Tensor, shape: &[usize], first: i64| {
        assert_eq!(t.shape(), shape);
        assert_eq!(t.to_vec::<i64>().unwrap()[0], first);
    };
    check(x.at(1), &[3, 4], 12);
    check(x.at((.., -1)), &[2, 4], 8);
    check(x.at((.., 1..=1, ..2)), &[2, 1, 2], 4);
    check(x.at((0, -2.., step(1.., 2))), &[2, 2], 5);
    check(x.at((NewDim, 1, 2)), &[1, 4], 20);
    check(x.at((.., ..100)), &[2, 3, 4], 0);
    let (start, end) = (2, 1);
    assert_eq!(x.at((.., start..end)).shape(), [2, 0, 4]);
    check(x.narrow(1, 1, 2), &[2, 2, 4], 4);
}

#[test]
fn reductions_name_dimensions_in_many_ways() {
    let x = Tensor::iota([2, 3, 4], 2, DType::F32);
    assert_eq!(x.sum(..).item::<f32>().unwrap(), 36.0);
    assert_eq!(x.sum(-1).shape(), [2, 3]);
    assert_eq!(x.mean([0, 2]).shape(), [3]);
    assert_eq!(x.max(keep([0, -1])).shape(), [1, 3, 1]);
    assert_eq!(x.sum(vec![1usize]).shape(), [2, 4]);
}

#[test]
fn tensors_cross_threads_and_devices() {
    let x = Tensor::from([1.0f32, 2.0]);
    let y = std::thread::spawn(move || x * 2.0).join().unwrap();
    let reference = y.to_device(&Device::reference());
    assert_eq!((&reference + 1.0).to_vec::<f32>().unwrap(), [3.0, 5.0]);
    assert_eq!((reference + y).to_vec::<f32>().unwrap(), [4.0, 8.0]);
}

#[test]
fn host_values_come_and_go() {
    assert_eq!(Tensor::from(vec![vec![1u8, 2], vec![3, 4]]).shape(), [2, 2]);
    assert_eq!(Tensor::from([true, false]).to_vec::<bool>().unwrap(), [true, false]);
    let x = Tensor::linspace(0.0, 1.0, 5, DType::F64);
    assert_eq!(x.to_vec::<f64>().unwrap(), [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(Tensor::range(1.0, 2.0, 0.5, DType::F32).to_vec::<f32>().unwrap(), [1.0, 1.5]);
    let empty: [f32; 0] = [];
    assert_eq!(Tensor::from(empty).sum(..).item::<f32>().unwrap(), 0.0);
}
