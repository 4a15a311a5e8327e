//! Convolutions, pooling, resizing and normalisation of channels, values and gradients.

use crate::support::check_both_ways;
use ferrata_ir::composite::*;
use ferrata_ir::{Builder, DType, Value};

const DTYPES: [DType; 3] = [DType::F32, DType::F64, DType::BF16];

/// The results of `build` and the cotangents of all operands, for operands of these shapes.
fn both_ways(shapes: &[&[usize]], what: &str, build: impl Fn(&mut Builder, &[Value]) -> Value) {
    check_both_ways(&DTYPES, shapes, 8.0, what, |b, x| vec![build(b, x)]);
}

#[test]
fn convolutions() {
    let plain = [
        (Conv::new(2).padding(1), [2, 16, 9, 10], [24, 16, 3, 3]),
        (Conv::new(2).stride(2).padding(3), [1, 3, 17, 18], [16, 3, 7, 7]),
        (Conv::new(2).stride(2), [2, 12, 8, 8], [20, 12, 1, 1]),
        (Conv::new(2).padding(1).groups(12), [2, 12, 7, 9], [12, 1, 3, 3]),
        (Conv::new(2).dilation(2).groups(2), [1, 6, 9, 9], [4, 3, 3, 2]),
        (Conv::new(2).stride(4), [2, 3, 8, 12], [10, 3, 4, 4]),
    ];
    for (how, x, w) in &plain {
        both_ways(&[x, w, &w[..1]], &format!("conv {w:?}"), |b, x| {
            conv(b, x[0], x[1], Some(x[2]), how)
        });
    }
    let how = Conv::new(1).padding(2).groups(3);
    both_ways(&[&[2, 9, 20], &[6, 3, 5]], "conv1d", |b, x| conv(b, x[0], x[1], None, &how));
    let how = Conv { stride: vec![1, 2, 1], ..Conv::new(3).padding(1) };
    both_ways(&[&[1, 3, 5, 6, 4], &[4, 3, 2, 3, 3]], "conv3d", |b, x| {
        conv(b, x[0], x[1], None, &how)
    });
    let how = Conv::new(2).stride(2).padding(1);
    both_ways(&[&[2, 6, 5, 4], &[6, 8, 4, 3], &[8]], "conv_transpose", |b, x| {
        conv_transpose(b, x[0], x[1], Some(x[2]), &how, &[0, 1])
    });
    both_ways(&[&[2, 3, 6, 7]], "unfold", |b, x| unfold(b, x[0], &[3, 2], &how));
    both_ways(&[&[2, 18, 12]], "fold", |b, x| fold(b, x[0], &[6, 6], &[3, 2], &how));
}

#[test]
fn pools() {
    let x: &[&[usize]] = &[&[2, 3, 17, 18]];
    for pool in [
        Pool::new([2, 2]),
        Pool::new([3, 3]).stride([2, 2]).padding([1, 1]),
        Pool::new([2, 3]).stride([3, 2]).padding([1, 0]).ceil(),
    ] {
        both_ways(x, &format!("max {pool:?}"), |b, x| max_pool(b, x[0], &pool));
        for include in [false, true] {
            both_ways(x, &format!("mean {pool:?}"), |b, x| avg_pool(b, x[0], &pool, include));
        }
    }
    for sizes in [[1, 1], [5, 4], [20, 30]] {
        both_ways(x, &format!("mean of {sizes:?}"), |b, x| adaptive_avg_pool(b, x[0], &sizes));
        both_ways(x, &format!("max of {sizes:?}"), |b, x| adaptive_max_pool(b, x[0], &sizes));
    }
}

#[test]
fn resizing() {
    let x: &[&[usize]] = &[&[2, 3, 11, 8]];
    for mode in [
        Interpolation::Nearest,
        Interpolation::Linear { align_corners: false },
        Interpolation::Cubic { align_corners: true },
    ] {
        for sizes in [[22, 24], [7, 19], [3, 1]] {
            both_ways(x, &format!("{mode:?} {sizes:?}"), |b, x| interpolate(b, x[0], &sizes, mode));
        }
    }
}

/// In half precision a place may fall on the other side of a pixel's edge.
#[test]
fn sampling_at_places() {
    for (nearest, outside) in
        [(false, Outside::Zeros), (false, Outside::Border), (true, Outside::Zeros)]
    {
        let what = format!("{nearest} {outside:?}");
        let shapes: &[&[usize]] = &[&[2, 3, 6, 5], &[2, 4, 7, 2]];
        check_both_ways(&[DType::F32, DType::F64], shapes, 8.0, &what, |b, x| {
            let how = GridSample { nearest, outside, align_corners: false };
            vec![grid_sample(b, x[0], x[1], how)]
        });
    }
}

#[test]
fn normalised_channels() {
    let parameters: [&[usize]; 4] = [&[6]; 4];
    for shape in [&[3, 6, 5, 7][..], &[40, 6], &[2, 6, 9]] {
        let shapes = [&[shape][..], &parameters].concat();
        both_ways(&shapes, &format!("batch_norm_train {shape:?}"), |b, x| {
            batch_norm_train(b, x[0], [x[1], x[2], x[3], x[4]], 0.1, 0.1).y
        });
        both_ways(&shapes[..3], &format!("group_norm {shape:?}"), |b, x| {
            group_norm(b, x[0], x[1], x[2], 3, 0.1)
        });
    }
}

/// Residual blocks, the second one of which halves the size.
#[test]
fn residual_blocks() {
    for [n, c, h, w] in [[4, 6, 9, 8], [8, 8, 6, 6], [2, 16, 6, 5]] {
        let (x, wide) = ([n, c, h, w], 2 * c);
        let kernels = [[c, c, 3, 3], [c, c, 3, 3], [wide, c, 3, 3], [wide, wide, 3, 3]];
        let shapes: [&[usize]; 8] = [
            &x,
            &kernels[0],
            &kernels[1],
            &kernels[2],
            &kernels[3],
            &[wide, c, 1, 1],
            &[c],
            &[wide],
        ];
        both_ways(&shapes, &format!("blocks of {x:?}"), |b, v| {
            let convolved = |b: &mut Builder, x: Value, w: Value, p: Value, stride: usize| {
                let padding = b.ty(w).shape[2] as i64 / 2;
                let y = conv(b, x, w, None, &Conv::new(2).stride(stride).padding(padding));
                batch_norm_train(b, y, [p; 4], 0.1, 0.1).y
            };
            let y = convolved(b, v[0], v[1], v[6], 1);
            let y = relu(b, y);
            let y = convolved(b, y, v[2], v[6], 1);
            let y = b.add(y, v[0]);
            let x = relu(b, y);
            let y = convolved(b, x, v[3], v[7], 2);
            let y = relu(b, y);
            let y = convolved(b, y, v[4], v[7], 1);
            let shortcut = convolved(b, x, v[5], v[7], 2);
            let y = b.add(y, shortcut);
            relu(b, y)
        });
    }
}
