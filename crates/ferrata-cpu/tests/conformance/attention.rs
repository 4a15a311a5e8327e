//! Attention, which the device runs with a kernel of its own.

use crate::support::{check, devices, f32s, program, small, ty};
use ferrata_compiler::{Kernel, compile};
use ferrata_ir::composite::{Attention, attention};
use ferrata_ir::testing::Random;
use ferrata_ir::transform::vjp;
use ferrata_ir::{Builder, DType, Function, Literal, Scalar, Type};
use std::sync::Arc;

#[test]
fn forward_and_backward() {
    let plain = Attention::default();
    let causal = Attention { causal: true, ..plain };
    let all = [
        plain,
        causal,
        Attention { offset: 3, window: Some(4), ..causal },
        Attention { offset: -4, ..causal },
        Attention { offset: -6, window: Some(2), ..plain },
        Attention { softcap: Some(5.0), scale: Some(0.7), ..plain },
    ];
    for settings in all {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            for lengths in [false, true] {
                for [queries, keys, features] in [[9, 12, 8], [1, 1, 1], [1, 12, 8]] {
                    let mut types = vec![
                        ty(dtype, &[2, 4, queries, features]),
                        ty(dtype, &[2, 2, keys, features]),
                        ty(dtype, &[2, 2, keys, 6]),
                    ];
                    if lengths {
                        types.push(ty(DType::I64, &[2]));
                    }
                    one(&types, &settings, false, lengths);
                }
            }
        }
    }
}

#[test]
fn of_nothing() {
    for [batch, queries, keys] in [[0, 3, 3], [1, 0, 3], [1, 3, 0]] {
        let types = [[queries, 4], [keys, 4], [keys, 6]].map(|[n, d]| f32s(&[batch, 2, n, d]));
        one(&types, &Attention::default(), false, false);
    }
}

/// Queries, keys and values side by side in one matrix that begins at an odd place, as a model
/// projects them; a NaN in a query, an infinity and denormals in the values.
#[test]
fn operands_at_odd_places_and_special_values() {
    let (time, heads, width) = (37, 3, 8);
    for dtype in [DType::F32, DType::F64] {
        for causal in [false, true] {
            let types = [ty(dtype, &[2, time + 1, 3 * heads * width + 1])];
            let f = program(&types, |b, x| {
                let start = b.slice_dim(x[0], 1, 1, time + 1);
                let part = |b: &mut Builder, i: usize| {
                    let from = 1 + i * heads * width;
                    let y = b.slice_dim(start, 2, from, from + heads * width);
                    let y = b.reshape(y, &[2, time, heads, width]);
                    b.transpose(y, &[0, 2, 1, 3])
                };
                let [q, k, v] = [0, 1, 2].map(|i| part(b, i));
                let settings = Attention { causal, ..Attention::default() };
                let y = attention(b, q, k, v, None, None, &settings);
                vec![b.transpose(y, &[0, 2, 1, 3])]
            });
            let plain = small(&mut Random::new(3), &types[0]);
            let what = format!("{dtype} causal {causal}");
            check(&f, std::slice::from_ref(&plain), 100.0, 1.0, &what);
            let row = 3 * heads * width + 1;
            // The last position, so that where it is not finite does not depend on masking.
            let last = time * row;
            let special = Literal::build(types[0].clone(), |i| match i.checked_sub(last) {
                Some(1) => Scalar::Float(f64::NAN),
                Some(at) if at == 1 + 2 * heads * width => Scalar::Float(f64::INFINITY),
                Some(at) if at == 2 + 2 * heads * width => Scalar::Float(1e-320),
                _ => plain.get(i),
            });
            if !causal {
                check(&f, &[special.rounded()], 100.0, 1.0, &what);
            }
        }
    }
}

#[test]
fn masks() {
    let plain = Attention::default();
    let causal = Attention { causal: true, offset: 2, ..plain };
    let capped = Attention { softcap: Some(5.0), ..plain };
    let mut n = 0;
    for (settings, keys) in [(plain, 12), (causal, 12), (capped, 12), (causal, 110)] {
        for shape in [[1, 1, 9, keys], [2, 4, 9, keys], [2, 1, 1, keys], [1, 4, 9, 1]] {
            let dtypes = [DType::F32, DType::F64, DType::BF16, DType::F16];
            let dtype = dtypes[n % dtypes.len()];
            let lengths = n % 3 == 0;
            n += 1;
            for mask in [dtype, DType::Bool] {
                let mut types = vec![
                    ty(dtype, &[2, 4, 9, 8]),
                    ty(dtype, &[2, 2, keys, 8]),
                    ty(dtype, &[2, 2, keys, 6]),
                    ty(mask, &shape),
                ];
                if lengths {
                    types.push(ty(DType::I64, &[2]));
                }
                one(&types, &settings, true, lengths);
            }
        }
    }
}

/// Checks attention of these types and its gradients.
fn one(types: &[Type], settings: &Attention, mask: bool, lengths: bool) {
    let f = program(types, |b, x| {
        let lengths = lengths.then(|| x[x.len() - 1]);
        vec![attention(b, x[0], x[1], x[2], mask.then(|| x[3]), lengths, settings)]
    });
    let random = &mut Random::new(3);
    let mut args: Vec<_> = types.iter().map(|t| small(random, t)).collect();
    let what = format!("{settings:?} of {types:?}");
    check(&f, &args, 100.0, 1.0, &what);
    let wrt: Vec<bool> = types.iter().map(|t| t.dtype.is_float()).collect();
    let g = Arc::new(vjp(&f, &wrt).unwrap());
    let rest: Vec<Type> = g.parameter_types()[types.len()..].iter().map(|&t| t.clone()).collect();
    args.extend(rest.iter().map(|t| small(random, t)));
    check(&g, &args, 200.0, 4.0, &what);
}

/// Attention between two projections, as in a GPT: `x [batch, time, width]`, then the weights.
fn layer(batch: usize, time: usize, heads: usize, size: usize) -> Function {
    let width = heads * size;
    let types = [f32s(&[batch, time, width]), f32s(&[width, 3 * width]), f32s(&[width, width])];
    let f = program(&types, |b, x| {
        let all = b.dot(x[0], x[1], (&[], &[]), (&[2], &[0]));
        let [q, k, v] = [0, 1, 2].map(|i| {
            let part = b.slice_dim(all, 2, i * width, (i + 1) * width);
            let part = b.reshape(part, &[batch, time, heads, size]);
            b.transpose(part, &[0, 2, 1, 3])
        });
        let causal = Attention { causal: true, ..Attention::default() };
        let y = attention(b, q, k, v, None, None, &causal);
        let y = b.transpose(y, &[0, 2, 1, 3]);
        let y = b.reshape(y, &[batch, time, width]);
        let y = b.dot(y, x[2], (&[], &[]), (&[2], &[0]));
        vec![b.add(y, x[0])]
    });
    Arc::unwrap_or_clone(f)
}

#[test]
fn a_layer_reads_and_writes_heads_in_place() {
    let layer = Arc::new(layer(2, 5, 2, 4));
    let types: Vec<Type> = layer.parameter_types().into_iter().cloned().collect();
    let f = program(&types, |b, x| {
        let y = b.call(&layer, x)[0];
        let y = b.call(&layer, &[y, x[1], x[2]])[0];
        vec![y]
    });
    let gradient = Arc::new(vjp(&f, &[true; 3]).unwrap());
    let random = &mut Random::new(4);
    let types = gradient.parameter_types();
    let args: Vec<_> = types.iter().map(|t| small(random, t)).collect();
    check(&gradient, &args, 400.0, 4.0, "two layers");
    let plan = compile(&gradient, &[false; 4], &devices()[0]).unwrap();
    let copies = |k: &&Arc<Kernel>| matches!(&***k, Kernel::Loop(l) if l.body.len() == 1);
    assert_eq!(plan.kernels.iter().filter(copies).count(), 0, "{plan}");
}
