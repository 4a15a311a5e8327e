use ferrata::nn::{Context, Linear};
use ferrata::{DType, Error, Key, Tensor, compile, custom, grad, scope, vmap};

fn said<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("no error"),
        Err(e) => e.to_string(),
    }
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F32)
}

#[test]
fn shapes_that_do_not_broadcast_name_operation_shapes_scope_line_and_remedy() {
    let x = scope("head", || ones(&[2, 3]) + ones(&[4]));
    let line = line!() - 1;
    let e = said((x.exp() * 2.0).sum(..).item::<f32>());
    assert_eq!(
        e,
        format!(
            "add(f32[2,3], f32[4]): shapes [2, 3] and [4] do not broadcast: dimension -1 is 3 \
             and 4, in scope head, at {}:{line}; sizes, aligned at the end, must be equal or 1; \
             see reshape and unsqueeze",
            file!()
        )
    );
}

#[test]
fn mixed_dtypes_name_the_cast() {
    let e = said((ones(&[2]) + Tensor::from([1i64, 2])).eval());
    assert!(
        e.starts_with("add(f32[2], i64[2]): operands have different dtypes f32 and i64"),
        "{e}"
    );
    assert!(e.contains("cast one of them"), "{e}");
    let e = said((Tensor::from([1i64]) * 0.5).eval());
    assert!(e.contains("0.5 is no value of i64") && e.contains("cast"), "{e}");
}

#[test]
fn wrong_dimensions_say_which_exist() {
    let e = said(ones(&[2, 3]).sum(2).eval());
    assert!(e.starts_with("sum(f32[2,3]): dimension 2 does not exist"), "{e}");
    assert!(e.ends_with("use one of -2..=1"), "{e}");
    let e = said(ones(&[2, 3]).at((0, 0, 0)).eval());
    assert!(e.starts_with("at(f32[2,3]): 3 indices for 2 dimensions"), "{e}");
    let e = said(ones(&[2, 3]).at(-3).eval());
    assert!(e.contains("index -3 is out of bounds for dimension 0 of size 2"), "{e}");
}

#[test]
fn reading_needs_the_right_dtype_and_one_element() {
    let e = said(ones(&[2]).to_vec::<f64>());
    assert!(e.contains("f32[2] does not hold elements of type f64"), "{e}");
    let e = said(ones(&[2]).item::<f32>());
    assert!(e.contains("has 2 elements, not one"), "{e}");
}

#[test]
fn reading_a_traced_value_says_so() {
    let result = grad(|x: &Tensor| match x.sum(..).item::<f32>() {
        Ok(_) => x.sum(..),
        Err(e) => Tensor::failed(e),
    })(&ones(&[3]));
    let e = said(result.eval());
    assert!(e.contains("belongs to a function being traced"), "{e}");
}

#[test]
fn a_value_that_escapes_its_function_is_refused() {
    let stolen = std::sync::Mutex::new(None);
    let _ = grad(|x: &Tensor| {
        *stolen.lock().unwrap() = Some(x.clone());
        x.sum(..)
    })(&ones(&[3]));
    let x = stolen.into_inner().unwrap().unwrap();
    assert!(said((&x + 1.0).eval()).contains("belongs to a function being traced"));
    let again = grad(|y: &Tensor| (y * &x).sum(..))(&ones(&[3]));
    assert!(said(again.eval()).contains("belongs to a function being traced"));
}

#[test]
fn errors_inside_layers_name_the_users_line() {
    let layer = Linear::new(3, 2, &Key::new(0));
    let mut cx = Context::eval();
    let y = cx.scope("encoder", |cx| layer.forward(&ones(&[5, 4]), cx));
    let line = line!() - 1;
    let e = said(y.eval());
    assert!(e.starts_with("linear(f32[5,4], f32[2,3], f32[2]): "), "{e}");
    assert!(e.contains("in scope encoder"), "{e}");
    assert!(e.contains(&format!("errors.rs:{line}")), "{e}");
}

#[test]
fn gradients_need_a_scalar_and_a_derivative() {
    let e = said(grad(|x: &Tensor| x * 2.0)(&ones(&[3])).eval());
    assert!(e.contains("f32[3]") && e.contains("mean()"), "{e}");
    let dtype = grad(|x: &Tensor| x.sum(..))(&Tensor::from([1i64, 2]));
    assert!(dtype.eval().is_err());
}

#[test]
fn a_failed_argument_stays_the_first_cause() {
    let bad = ones(&[2]).reshape([3]);
    let e = said(grad(|x: &Tensor| x.reshape([7, 7]).sum(..))(&bad).eval());
    assert!(e.starts_with("reshape(f32[2]): "), "{e}");
    let e = said(vmap(|x: &Tensor| x.matmul(x))(&bad).eval());
    assert!(e.starts_with("reshape(f32[2]): "), "{e}");
    let f = compile(|x: Tensor| x + 1.0);
    assert!(said(f.call(bad)).starts_with("reshape(f32[2]): "));
}

#[test]
fn compiling_reports_the_wrong_line() {
    let f = compile(|x: Tensor| x.matmul(&ones(&[5, 5])));
    let e = said(f.call(ones(&[2, 3])));
    assert!(e.starts_with("matmul(f32[2,3], f32[5,5]): "), "{e}");
    assert!(e.contains("errors.rs:"), "{e}");
    assert_eq!(f.traces(), 0);
}

#[test]
fn custom_derivatives_do_not_lose_gradients() {
    let e = said(
        grad(|w: &Tensor| {
            let f = custom("scale", |x: &Tensor| (x * w, ()), |_: &(), dy: &Tensor| dy.clone());
            f(&ones(&[2])).sum(..)
        })(&ones(&[2]))
        .eval(),
    );
    assert!(e.contains("captures f32[2], whose gradient would be lost"), "{e}");
    let e = said(
        grad(|x: &Tensor| {
            let f = custom("half", |x: &Tensor| (x * 0.5, ()), |_: &(), dy: &Tensor| dy.sum(..));
            f(x).sum(..)
        })(&ones(&[2]))
        .eval(),
    );
    assert!(e.contains("gives f32[] as gradient"), "{e}");
}

#[test]
fn a_context_without_key_says_how_to_give_one() {
    let e = said(Context::eval().key());
    assert!(e.contains("Context::train"), "{e}");
}

#[test]
fn what_first_makes_a_nan_is_named_with_scope_and_line() {
    let f = compile(|x: Tensor| {
        let y = scope("head", || x.log());
        let (sorted, _) = y.sort(0, false);
        sorted.exp() * 2.0
    });
    let line = line!() - 4;
    let e = said(f.call_watching(Tensor::from([3f32, -1.0, 2.0])));
    let place = format!("in scope head, at {}:{line}", file!());
    assert!(e.contains("makes NaN of finite numbers") && e.contains(&place), "{e}");
    let e = said(f.call_watching(Tensor::from([3f32, 0.0, 2.0])));
    assert!(e.contains("makes infinities of finite numbers") && e.contains(&place), "{e}");
    assert!(f.call_watching(Tensor::from([3f32, 1.0, 2.0])).is_ok());
    assert!(f.call_watching(Tensor::from([f32::NAN, 1.0, 2.0])).is_ok(), "it was there before");
}

/// Fails unless started by the test below.
#[test]
#[ignore = "what `an_impossible_instruction_set_is_no_silent_other` runs in a process of its own"]
fn on_an_impossible_instruction_set() {
    let x = Tensor::from([1f32, 2.0]);
    let expected = "FERRATA_ISA=sse9 is no instruction set; use ";
    for e in [said((&x * 2.0).eval()), said(compile(|x: Tensor| x.exp()).call(x.clone()))] {
        assert!(e.contains(expected), "{e}");
    }
}

#[test]
fn an_impossible_instruction_set_is_no_silent_other() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .env("FERRATA_ISA", "sse9")
        .args(["errors::on_an_impossible_instruction_set", "--exact", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
