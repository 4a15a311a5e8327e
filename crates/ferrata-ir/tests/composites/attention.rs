use crate::check::{bools, build, check, ints, random, run};
use ferrata_ir::composite::attention::{Plan, flops};
use ferrata_ir::composite::{Attention, attention};
use ferrata_ir::primitive::Primitive;
use ferrata_ir::{Builder, Composite, DType, Literal, Type};

fn qkv(q: [usize; 4], groups: usize, keys: usize, value: usize) -> Vec<Literal> {
    vec![
        random(1, &q),
        random(2, &[q[0], groups, keys, q[3]]),
        random(3, &[q[0], groups, keys, value]),
    ]
}

#[test]
fn plain() {
    check(&qkv([2, 2, 2, 3], 2, 3, 2), |b, x| {
        vec![attention(b, x[0], x[1], x[2], None, None, &Attention::default())]
    });
}

#[test]
fn grouped_causal_window_cap() {
    let settings = Attention {
        scale: Some(0.7),
        causal: true,
        offset: 1,
        window: Some(2),
        softcap: Some(1.5),
    };
    check(&qkv([1, 4, 3, 2], 2, 4, 2), |b, x| {
        vec![attention(b, x[0], x[1], x[2], None, None, &settings)]
    });
}

#[test]
fn additive_mask_gets_a_gradient() {
    for shape in [&[2, 1, 2, 3][..], &[2, 3], &[1, 4, 1, 3]] {
        let mut args = qkv([2, 4, 2, 2], 2, 3, 2);
        args.push(random(4, shape));
        check(&args, |b, x| {
            vec![attention(b, x[0], x[1], x[2], Some(x[3]), None, &Attention::default())]
        });
    }
}

#[test]
fn bool_mask_and_lengths() {
    let mut args = qkv([2, 2, 2, 2], 1, 3, 2);
    args.push(bools(&[2, 1, 1, 3], &[1, 0, 1, 1, 1, 1]));
    args.push(ints(&[2], &[3, 2]));
    check(&args, |b, x| {
        vec![attention(b, x[0], x[1], x[2], Some(x[3]), Some(x[4]), &Attention::default())]
    });
}

/// Against the definition, element by element.
#[test]
fn meaning() {
    let (heads, groups, queries, keys, size) = (4, 2, 3, 5, 2);
    let settings =
        Attention { scale: None, causal: true, offset: 2, window: Some(3), softcap: Some(2.0) };
    let mut args = qkv([1, heads, queries, size], groups, keys, 3);
    args.push(ints(&[1], &[4]));
    let f = build(&args, |b, x| vec![attention(b, x[0], x[1], x[2], None, Some(x[3]), &settings)]);
    let got = run(&f, &args)[0].to_f64();
    let (q, k, v) = (args[0].to_f64(), args[1].to_f64(), args[2].to_f64());
    for h in 0..heads {
        let g = h / (heads / groups);
        for i in 0..queries {
            let mut weights = vec![0.0; keys];
            for (j, w) in weights.iter_mut().enumerate() {
                let score: f64 = (0..size)
                    .map(|d| q[(h * queries + i) * size + d] * k[(g * keys + j) * size + d])
                    .sum();
                let score = 2.0 * (score / (size as f64).sqrt() / 2.0).tanh();
                let seen = j <= i + 2 && j + 3 > i + 2 && j < 4;
                *w = if seen { score.exp() } else { 0.0 };
            }
            let sum: f64 = weights.iter().sum();
            for d in 0..3 {
                let want: f64 =
                    (0..keys).map(|j| weights[j] / sum * v[(g * keys + j) * 3 + d]).sum();
                let got = got[(h * queries + i) * 3 + d];
                assert!((got - want).abs() < 1e-13, "{h} {i} {d}: {got} {want}");
            }
        }
    }
}

#[test]
fn a_query_without_keys_gives_zeros_and_no_gradient() {
    let mut args = qkv([2, 1, 2, 2], 1, 3, 2);
    args.push(ints(&[2], &[0, 2]));
    let f = build(&args, |b, x| {
        vec![attention(b, x[0], x[1], x[2], None, Some(x[3]), &Attention::default())]
    });
    assert_eq!(run(&f, &args)[0].to_f64()[..4], [0.0; 4]);
    check(&args, |b, x| {
        vec![attention(b, x[0], x[1], x[2], None, Some(x[3]), &Attention::default())]
    });
}

#[test]
fn a_device_finds_operands_and_settings() {
    let settings = Attention { causal: true, window: Some(7), ..Attention::default() };
    let args = qkv([1, 2, 3, 4], 2, 3, 4);
    let f = build(&args, |b, x| vec![attention(b, x[0], x[1], x[2], None, None, &settings)]);
    let Primitive::Call(outer) = &f.nodes()[0].op else { panic!("no call") };
    let Primitive::Call(inner) = &outer.function.nodes()[0].op else { panic!("no call") };
    let composite = inner.function.composite.as_ref().unwrap();
    assert_eq!(composite.name, "attention_forward");
    let plan = Plan::of(composite).unwrap();
    assert_eq!(plan.settings, Attention { scale: Some(0.5), ..settings });
    assert!(!plan.mask && !plan.lengths);
}

#[test]
fn wrong_operands_are_errors() {
    let error = |q: [usize; 4], k: [usize; 4], settings: Attention| {
        let mut b = Builder::new("f");
        let q = b.parameter(Type::new(DType::F32, q));
        let k = b.parameter(Type::new(DType::F32, k));
        let y = attention(&mut b, q, k, k, None, None, &settings);
        let y = b.exp(y);
        b.finish(&[y]).unwrap_err().to_string()
    };
    let plain = Attention::default();
    let e = error([1, 3, 4, 2], [1, 2, 4, 2], plain);
    assert!(e.starts_with("attention(") && e.contains("3 query heads"), "{e}");
    let e = error([1, 2, 4, 3], [1, 2, 4, 2], plain);
    assert!(e.contains("the key is f32[1,2,4,2], but must have shape [1, 2, 4, 3]"), "{e}");
    let e = error([1, 2, 4, 2], [1, 2, 4, 2], Attention { window: Some(0), ..plain });
    assert!(e.contains("window and softcap must be above 0"), "{e}");
}

/// Against counting every pair of every head, with the products of forward and backward spelt out.
#[test]
fn operations_are_those_of_the_products_of_pairs_that_see_each_other() {
    let (batch, heads, queries, keys, size, value) = (2, 4, 5, 7, 3, 6);
    for (causal, offset, window) in
        [(false, 0, None), (true, 0, None), (true, 2, Some(3)), (false, -1, Some(2))]
    {
        let settings = Attention { causal, offset, window, ..Attention::default() };
        let sees = |i: i64, j: i64| {
            (!causal || j <= i + offset) && window.is_none_or(|w| j > i + offset - w as i64)
        };
        let all = (0..queries as i64).flat_map(|i| (0..keys as i64).map(move |j| (i, j)));
        let pairs = batch * heads * all.filter(|&(i, j)| sees(i, j)).count();
        let f = build(&qkv([batch, heads, queries, size], 2, keys, value), |b, x| {
            vec![attention(b, x[0], x[1], x[2], None, None, &settings)]
        });
        let [q, k, v] = [0, 1, 2].map(|i| &f.parameter_types()[i].shape[..]);
        let Primitive::Call(call) = &f.nodes()[0].op else { panic!("{f}") };
        let composite = call.function.composite.clone().unwrap();
        let scores = 2 * pairs * size;
        let values = 2 * pairs * value;
        let forward = flops(&composite, &[q, k, v]);
        assert_eq!(forward, Some((scores + values) as f64), "{settings:?}");
        let backward = Composite { name: "attention_backward", ..composite };
        let (dv, dp, dq, dk) = (values, values, scores, scores);
        let want = (scores + dv + dp + dq + dk) as f64;
        assert_eq!(flops(&backward, &[q, k, v, q, &[], q]), Some(want), "{settings:?}");
    }
}
