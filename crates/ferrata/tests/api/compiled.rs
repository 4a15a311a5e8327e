use ferrata::{DType, Key, Tensor, compile, grad};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_new_kind_of_argument_is_traced_once() {
    let runs = AtomicUsize::new(0);
    let f = compile(|(x, times): (Tensor, usize)| {
        runs.fetch_add(1, Ordering::Relaxed);
        x * times
    });
    let call = |n: usize, times: usize| {
        f.call((Tensor::ones([n], DType::F32), times)).unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!(call(2, 3), [3.0; 2]);
    assert_eq!(call(2, 3), [3.0; 2]);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(call(3, 3), [3.0; 3]);
    assert_eq!(call(3, 4), [4.0; 3]);
    assert_eq!(f.traces(), 3);
}

#[test]
fn donated_arguments_do_not_change_what_others_hold() {
    let f = compile(|x: Tensor| x + 1.0);
    let kept = Tensor::ones([4], DType::F32) * 2.0;
    let other = kept.clone();
    assert_eq!(f.call(kept).unwrap().to_vec::<f32>().unwrap(), [3.0; 4]);
    assert_eq!(other.to_vec::<f32>().unwrap(), [2.0; 4]);
    let mut x = other;
    for _ in 0..5 {
        x = f.call(x).unwrap();
    }
    assert_eq!(x.to_vec::<f32>().unwrap(), [7.0; 4]);
}

#[test]
fn compiled_functions_nest_and_capture() {
    let w = Tensor::from([1.0f64, 2.0, 3.0]);
    let inner = compile(|x: Tensor| (x * &w).sum(..));
    let outer = compile(|x: Tensor| {
        grad(|x: &Tensor| inner.call(x.clone()).unwrap_or_else(Tensor::failed).square())(&x)
    });
    let x = Tensor::from([1.0f64, 1.0, 1.0]);
    assert_eq!(outer.call(x).unwrap().to_vec::<f64>().unwrap(), [12.0, 24.0, 36.0]);
}

#[test]
fn keys_are_data_and_agree_with_the_host() {
    let f = compile(|key: Key| Tensor::randn([3], DType::F32, &key.fold(4).split(2)[1]));
    for seed in [1, 2] {
        let key = Key::new(seed);
        let direct = Tensor::randn([3], DType::F32, &key.fold(4).split(2)[1]);
        let compiled = f.call(key).unwrap();
        assert_eq!(direct.to_vec::<f32>().unwrap(), compiled.to_vec::<f32>().unwrap());
    }
    assert_eq!(f.traces(), 1);
}

#[test]
fn random_numbers_have_their_moments() {
    let key = Key::new(11);
    let x = Tensor::randn([20_000], DType::F32, &key.fold(0));
    assert!(x.mean(..).item::<f32>().unwrap().abs() < 0.02);
    assert!((x.std(.., 0.0).item::<f32>().unwrap() - 1.0).abs() < 0.02);
    let u = Tensor::uniform([20_000], -1.0, 3.0, DType::F32, &key.fold(1));
    assert!((u.mean(..).item::<f32>().unwrap() - 1.0).abs() < 0.03);
    assert!(u.min(..).item::<f32>().unwrap() > -1.0 && u.max(..).item::<f32>().unwrap() < 3.0);
    let die = Tensor::randint([6000], 1, 7, &key.fold(2));
    for side in 1..7 {
        let count = die.eq(side).cast(DType::I64).sum(..).item::<i64>().unwrap();
        assert!((850..1150).contains(&count), "{side}: {count}");
    }
    let mut order = Tensor::permutation(50, &key.fold(3)).to_vec::<i64>().unwrap();
    assert_ne!(order, (0..50).collect::<Vec<_>>());
    order.sort();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_plan_computes_nothing() {
    let f = compile(|(x, y): (Tensor, Tensor)| x * 2.0 + y);
    let x = Tensor::randn([1000], DType::F32, &Key::new(1));
    let argument = (x.clone(), Tensor::zeros([1000], DType::F32));
    let executable = f.planned(&argument, true).unwrap().executable;
    assert_eq!(executable.plan().unwrap().takes, [Some(0)]);
    assert!(format!("{x:?}").contains("not yet"), "{x:?}");
    drop(x);
    f.call(argument).unwrap();
    // The call has the plan that was made for it.
    assert_eq!(f.traces(), 1);
}

#[test]
fn zeros_need_no_program() {
    let like = Tensor::ones([2, 3], DType::BF16).zeros_like();
    assert_eq!((like.shape(), like.dtype()), (&[2, 3][..], DType::BF16));
    for dtype in [DType::F32, DType::I64, DType::Bool, DType::BF16] {
        let zeros = Tensor::zeros([600, 1000], dtype);
        assert_eq!(zeros.to_bytes().unwrap(), vec![0; 600_000 * dtype.size()]);
    }
    let negative = Tensor::full([3], -0.0, DType::F32).to_vec::<f32>().unwrap();
    assert!(negative.iter().all(|x| x.is_sign_negative()));
}
