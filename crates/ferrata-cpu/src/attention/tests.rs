use super::*;
use crate::isa::Real;
use crate::testing::Random;

/// An element type of tensors, and that of their logarithms.
trait Element: Copy {
    type Value: Element;
    fn of(x: f64) -> Self;
    fn value(self) -> f64;
}

macro_rules! element {
    ($($t:ty, $value:ty: $of:expr, $to:expr);*) => {$(
        impl Element for $t {
            type Value = $value;
            fn of(x: f64) -> $t {
                $of(x)
            }
            fn value(self) -> f64 {
                $to(self)
            }
        }
    )*};
}
element!(
    f32, f32: Real::from_f64, Real::to_f64;
    f64, f64: Real::from_f64, Real::to_f64;
    bf16, f32: bf16::from_f64, bf16::to_f64;
    f16, f32: f16::from_f64, f16::to_f64
);

/// A tensor [batch, heads, positions, features] laid out in a way drawn at random.
#[derive(Clone)]
struct Tensor<T> {
    data: Vec<T>,
    shape: [usize; 4],
    strides: [isize; 4],
}

impl<T: Element> Tensor<T> {
    fn random(random: &mut Random, shape: [usize; 4]) -> Tensor<T> {
        let [b, h, t, d] = shape;
        let gap = random.below(3);
        // [b, h, t, d], [b, t, h, d] (as projections give it), and with features apart.
        let (strides, size) = match random.below(4) {
            0 | 1 => ([h * t * (d + gap), t * (d + gap), d + gap, 1], b * h * t * (d + gap)),
            2 => ([t * h * (d + gap), d + gap, h * (d + gap), 1], b * h * t * (d + gap)),
            _ => ([h * t * d, t * d, 1, t], b * h * t * d),
        };
        let data = (0..size + 1).map(|_| T::of(random.unit() * 2.0)).collect();
        Tensor { data, shape, strides: strides.map(|s| s as isize) }
    }

    fn input(&self) -> Input {
        Input { data: self.data.as_ptr().cast(), strides: self.strides }
    }

    fn written(&mut self) -> Written {
        Written { data: self.data.as_mut_ptr().cast(), strides: self.strides }
    }

    fn at(&self, index: [usize; 4]) -> f64 {
        let at: isize = index.iter().zip(self.strides).map(|(&i, s)| i as isize * s).sum();
        self.data[at as usize].value()
    }

    fn indices(&self) -> impl Iterator<Item = [usize; 4]> + use<T> {
        let [b, h, t, d] = self.shape;
        (0..b * h * t * d).map(move |i| [i / (h * t * d), i / (t * d) % h, i / d % t, i % d])
    }
}

/// What one query sees: scores before and after the cap, and their probabilities.
struct Row {
    scores: Vec<(usize, f64)>,
    probabilities: Vec<f64>,
    lse: f64,
}

/// The tensors of a case.
struct Case<'a, T> {
    problem: Attention<'a>,
    q: Tensor<T>,
    k: Tensor<T>,
    v: Tensor<T>,
    dout: Tensor<T>,
}

impl<T: Element> Case<'_, T> {
    fn sees(&self, batch: usize, i: usize, j: usize) -> bool {
        let p = &self.problem;
        let (position, j) = (i as i64 + p.offset as i64, j as i64);
        j < p.lengths.map_or(i64::MAX, |l| l[batch])
            && (!p.causal || j <= position)
            && p.window.is_none_or(|w| j > position - w as i64)
    }

    fn row(&self, b: usize, h: usize, i: usize) -> Row {
        let p = &self.problem;
        let kh = h / p.group();
        let scores: Vec<(usize, f64)> = (0..p.keys)
            .filter(|&j| self.sees(b, i, j))
            .map(|j| {
                let dot = |d| self.q.at([b, h, i, d]) * self.k.at([b, kh, j, d]);
                let score = p.scale * (0..p.features).map(dot).sum::<f64>();
                (j, p.softcap.map_or(score, |cap| cap * (score / cap).tanh()))
            })
            .collect();
        let largest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.1));
        let sum: f64 = scores.iter().map(|s| (s.1 - largest).exp()).sum();
        let lse = if scores.is_empty() { f64::NEG_INFINITY } else { largest + sum.ln() };
        let probabilities = scores.iter().map(|s| (s.1 - lse).exp()).collect();
        Row { scores, probabilities, lse }
    }

    /// Output and logarithms, then the gradients of queries, keys and values; flat, in f64.
    fn reference(&self) -> [Vec<f64>; 5] {
        let p = &self.problem;
        let (d, dv) = (p.features, p.value_features);
        let rows = p.batch * p.query_heads * p.queries;
        let keys = p.batch * p.key_heads * p.keys;
        let sizes = [rows * dv, rows, rows * d, keys * d, keys * dv];
        let [mut out, mut lse, mut dq, mut dk, mut dvs] = sizes.map(|n| vec![0.0; n]);
        for at in 0..rows {
            let (b, h) = (at / (p.query_heads * p.queries), at / p.queries % p.query_heads);
            let (i, kh) = (at % p.queries, h / p.group());
            let row = self.row(b, h, i);
            lse[at] = row.lse;
            let value = |j: usize, f: usize| self.v.at([b, kh, j, f]);
            let dout = |f: usize| self.dout.at([b, h, i, f]);
            for (&(j, _), &x) in row.scores.iter().zip(&row.probabilities) {
                for f in 0..dv {
                    out[at * dv + f] += x * value(j, f);
                }
            }
            let delta: f64 = (0..dv).map(|f| out[at * dv + f] * dout(f)).sum();
            for (&(j, score), &x) in row.scores.iter().zip(&row.probabilities) {
                let key = (b * p.key_heads + kh) * p.keys + j;
                let dx: f64 = (0..dv).map(|f| value(j, f) * dout(f)).sum();
                let uncapped = p.softcap.map_or(1.0, |cap| 1.0 - (score / cap).powi(2));
                let dscore = x * (dx - delta) * uncapped * p.scale;
                for f in 0..dv {
                    dvs[key * dv + f] += x * dout(f);
                }
                for f in 0..d {
                    dq[at * d + f] += dscore * self.k.at([b, kh, j, f]);
                    dk[key * d + f] += dscore * self.q.at([b, h, i, f]);
                }
            }
        }
        [out, lse, dq, dk, dvs]
    }

    /// What the kernels give, in the order of `reference`.
    fn compute(&self, pool: &Pool, isa: Isa, random: &mut Random) -> [Vec<f64>; 5] {
        let p = &self.problem;
        let mut out = Tensor::<T>::random(random, self.dout.shape);
        let [b, h, t, _] = self.dout.shape;
        let mut lse = Tensor::<T::Value>::random(random, [b, h, t, 1]);
        let (q, k, v) = (self.q.input(), self.k.input(), self.v.input());
        let forward = Forward { q, k, v, out: out.written(), lse: Some(lse.written()) };
        // SAFETY: the tensors have the sizes that their strides give.
        unsafe { attention(pool, isa, p, &forward) }.unwrap();
        let mut dq = Tensor::<T>::random(random, self.q.shape);
        let mut dk = Tensor::<T>::random(random, self.k.shape);
        let mut dv = Tensor::<T>::random(random, self.v.shape);
        let backward = Backward {
            q,
            k,
            v,
            out: out.input(),
            lse: lse.input(),
            dout: self.dout.input(),
            dq: dq.written(),
            dk: dk.written(),
            dv: dv.written(),
            dmask: None,
        };
        // SAFETY: as above.
        unsafe { attention_backward(pool, isa, p, &backward) }.unwrap();
        let flat = |t: &Tensor<T>| t.indices().map(|i| t.at(i)).collect();
        let lse = lse.indices().map(|i| lse.at(i)).collect();
        [flat(&out), lse, flat(&dq), flat(&dk), flat(&dv)]
    }
}

/// A random problem with the given sizes: [batch, key heads, group, queries, keys, features,
/// value features].
fn case<'a, T: Element>(
    random: &mut Random,
    dtype: DType,
    sizes: [usize; 7],
    lengths: &'a [i64],
) -> Case<'a, T> {
    let [batch, key_heads, group, queries, keys, features, value_features] = sizes;
    let query_heads = key_heads * group;
    let offsets = [0, keys as isize - queries as isize, 3, -2];
    let problem = Attention {
        dtype,
        batch,
        query_heads,
        key_heads,
        queries,
        keys,
        features,
        value_features,
        scale: 1.0 / (features.max(1) as f64).sqrt(),
        causal: random.below(3) > 0,
        offset: random.pick(&offsets),
        window: random.pick(&[None, None, Some(1), Some(7), Some(110)]),
        softcap: random.pick(&[None, None, Some(1.5)]),
        lengths: (random.below(3) == 0).then_some(lengths),
        mask: None,
    };
    Case {
        problem,
        q: Tensor::random(random, [batch, query_heads, queries, features]),
        k: Tensor::random(random, [batch, key_heads, keys, features]),
        v: Tensor::random(random, [batch, key_heads, keys, value_features]),
        dout: Tensor::random(random, [batch, query_heads, queries, value_features]),
    }
}

fn check<T: Element>(random: &mut Random, dtype: DType, sizes: [usize; 7], tolerance: f64) {
    let pool = Pool::new(2);
    let lengths: Vec<i64> = (0..sizes[0]).map(|_| random.below(sizes[4] + 3) as i64).collect();
    let case = case::<T>(random, dtype, sizes, &lengths);
    let want = case.reference();
    for isa in Isa::available() {
        let got = case.compute(&pool, isa, random);
        for (what, (got, want)) in
            ["out", "lse", "dq", "dk", "dv"].iter().zip(got.iter().zip(&want))
        {
            let scale = want.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
            for (i, (&x, &y)) in got.iter().zip(want).enumerate() {
                assert!(
                    x == y || (x - y).abs() <= tolerance * scale,
                    "{isa} {dtype} {sizes:?} {:?}: {what}[{i}] = {x}, not {y}",
                    case.problem
                );
            }
        }
    }
}

#[test]
fn attention_and_its_gradients_equal_the_definition() {
    let mut random = Random(11);
    for _ in 0..60 {
        let sizes = [
            random.pick(&[1, 2]),
            random.pick(&[1, 2]),
            random.pick(&[1, 1, 3]),
            random.pick(&[0, 1, 2, 5, 31, 97, 130]),
            random.pick(&[0, 1, 3, 33, 96, 200]),
            random.pick(&[1, 5, 16, 33]),
            random.pick(&[1, 8, 17, 40]),
        ];
        // A gradient that cancels is still made of products of up to 40 numbers of up to 4.
        check::<f32>(&mut random, DType::F32, sizes, 4e-5);
        check::<f64>(&mut random, DType::F64, sizes, 1e-9);
        check::<bf16>(&mut random, DType::BF16, sizes, 2e-2);
        check::<f16>(&mut random, DType::F16, sizes, 3e-3);
    }
}

#[test]
fn few_queries_of_a_long_cache() {
    let mut random = Random(12);
    for sizes in [[2, 2, 4, 1, 700, 20, 20], [1, 1, 1, 3, 513, 64, 64], [1, 2, 8, 1, 256, 8, 5]] {
        check::<f32>(&mut random, DType::F32, sizes, 1e-5);
        check::<f64>(&mut random, DType::F64, sizes, 1e-9);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for isa in Isa::available() {
        for sizes in [[1, 1, 2, 300, 310, 16, 16], [1, 1, 1, 1, 2000, 16, 16]] {
            let case = case::<f32>(&mut Random(13), DType::F32, sizes, &[290]);
            let run = |threads| case.compute(&Pool::new(threads), isa, &mut Random(14));
            assert_eq!(run(1), run(3), "{isa} {sizes:?}");
        }
    }
}

#[test]
fn wrong_problems_are_errors() {
    let case = case::<f32>(&mut Random(15), DType::F32, [1, 2, 1, 1, 1, 1, 1], &[1]);
    let p = Attention { lengths: None, ..case.problem };
    assert!(p.check().is_ok());
    let mask = Mask { data: std::ptr::null(), dtype: DType::I32, strides: [0; 4] };
    let wrong = [
        (Attention { dtype: DType::I32, ..p }, "attention of i32 is not defined"),
        (Attention { mask: Some(mask), ..p }, "a mask of i32 for attention of f32"),
        (Attention { query_heads: 3, ..p }, "3 query heads and 2 key heads"),
        (Attention { lengths: Some(&[1, 2]), ..p }, "1 batch entries with 2 lengths"),
    ];
    for (problem, message) in wrong {
        assert!(problem.check().unwrap_err().contains(message));
    }
}
