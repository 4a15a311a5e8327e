//! Random numbers with explicit keys.

use crate::tensor::{IntoShape, Tensor, resolve_shape};
use crate::tree::{Tree, Visitor};
use ferrata_ir::primitive::random::fold_key;
use ferrata_ir::primitive::{FoldKey, RandomBits};
use ferrata_ir::{DType, Error, Type, composite};

/// A key of random numbers. The same key gives the same numbers, on any device and with any
/// number of threads; use every key for one thing, and make new ones with [`Key::fold`] and
/// [`Key::split`].
///
/// ```
/// use ferrata::{DType, Key, Tensor};
/// let key = Key::new(42);
/// let x = Tensor::randn([1000], DType::F32, &key.fold(0));
/// let y = Tensor::randn([1000], DType::F32, &key.fold(1));
/// assert_ne!(x.to_vec::<f32>()?, y.to_vec::<f32>()?);
/// assert!(x.mean(..).item::<f32>()?.abs() < 0.1);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Key(Words);

#[derive(Clone, Debug)]
enum Words {
    /// Known on the host: folding costs nothing.
    Known([u32; 2]),
    /// u32`[2]`, perhaps of a traced function.
    Computed(Tensor),
}

impl Key {
    /// The key of a seed.
    pub fn new(seed: u64) -> Self {
        Key(Words::Known([seed as u32, (seed >> 32) as u32]))
    }

    /// The key whose words are this u32`[2]` tensor.
    pub fn from_tensor(words: &Tensor) -> Self {
        Key(Words::Computed(words.clone()))
    }

    /// The words, u32`[2]`.
    pub fn tensor(&self) -> Tensor {
        match &self.0 {
            Words::Known(words) => Tensor::from(*words),
            Words::Computed(words) => words.clone(),
        }
    }

    /// A new key; different `data` give independent ones.
    #[track_caller]
    pub fn fold(&self, data: u32) -> Key {
        match &self.0 {
            Words::Known(words) => Key(Words::Known(fold_key(*words, data))),
            Words::Computed(_) => self.fold_in(&Tensor::full((), f64::from(data), DType::U32)),
        }
    }

    /// A new key from computed `data`, an integer scalar, for example the number of the step.
    #[track_caller]
    pub fn fold_in(&self, data: &Tensor) -> Key {
        let words = self.tensor();
        Key(Words::Computed(Tensor::op("fold_in", &[&words, data], || {
            Ok(Tensor::record1(FoldKey {}, &[&words, &data.cast(DType::U32)]))
        })))
    }

    /// `n` independent keys.
    #[track_caller]
    pub fn split(&self, n: u32) -> Vec<Key> {
        (0..n).map(|i| self.fold(i)).collect()
    }
}

impl Tree for Key {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.tensor(&self.tensor());
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Key(Words::Computed(f(&self.tensor())))
    }
}

impl Tensor {
    /// Random u32, all values equally likely.
    #[track_caller]
    pub fn random_bits(shape: impl IntoShape, key: &Key) -> Tensor {
        let words = key.tensor();
        Tensor::op("random_bits", &[&words], || {
            Ok(Tensor::record1(RandomBits { shape: resolve_shape(shape, None)? }, &[&words]))
        })
    }

    /// Random numbers between 0 and 1, both excluded, of a float dtype.
    #[track_caller]
    pub fn rand(shape: impl IntoShape, dtype: DType, key: &Key) -> Tensor {
        let words = key.tensor();
        Tensor::op("rand", &[&words], || {
            if !dtype.is_float() {
                return Err(Error::new(format!("{dtype} has no numbers between 0 and 1"))
                    .help("use a float dtype, or randint"));
            }
            let bits = Tensor::random_bits(shape, key);
            if dtype == DType::F64 {
                return Ok((bits.cast(dtype) + 0.5) * 2f64.powi(-32));
            }
            // 23 bits and a half: exact in f32, and never 0 or 1.
            let unit = ((bits >> 9).cast(DType::F32) + 0.5) * 2f64.powi(-23);
            Ok(unit.cast(dtype))
        })
    }

    /// Random numbers between `low` and `high`, of a float dtype.
    #[track_caller]
    pub fn uniform(shape: impl IntoShape, low: f64, high: f64, dtype: DType, key: &Key) -> Tensor {
        Tensor::rand(shape, dtype, key) * (high - low) + low
    }

    /// Random numbers of the standard normal distribution, of a float dtype.
    #[track_caller]
    pub fn randn(shape: impl IntoShape, dtype: DType, key: &Key) -> Tensor {
        Tensor::normal(shape, 1.0, dtype, key)
    }

    /// Random numbers of the normal distribution with mean 0 and standard deviation `std`, of a
    /// float dtype.
    #[track_caller]
    pub fn normal(shape: impl IntoShape, std: f64, dtype: DType, key: &Key) -> Tensor {
        let words = key.tensor();
        Tensor::op("normal", &[&words], || {
            let ty = Type::new(dtype, resolve_shape(shape, None)?);
            Ok(Tensor::built1("random_normal", &[&words], |b, x| {
                composite::random_normal(b, x[0], &ty, std)
            }))
        })
    }

    /// Random integers (i64) from `low` (included) to `high` (excluded), at most 2³¹ of them.
    #[track_caller]
    pub fn randint(shape: impl IntoShape, low: i64, high: i64, key: &Key) -> Tensor {
        let words = key.tensor();
        Tensor::op("randint", &[&words], || {
            let count = i128::from(high) - i128::from(low);
            if !(1..=1 << 31).contains(&count) {
                return Err(Error::new(format!("{low}..{high} is empty or too wide")));
            }
            let bits = Tensor::random_bits(shape, key).cast(DType::I64);
            // The high word of the product: every value equally likely but for 1 in 2³².
            Ok(((bits * count as i64) >> 32) + low)
        })
    }

    /// True with probability `p`.
    #[track_caller]
    pub fn bernoulli(shape: impl IntoShape, p: f64, key: &Key) -> Tensor {
        Tensor::rand(shape, DType::F32, key).lt(p)
    }

    /// The numbers `0..n` (i64) in random order.
    #[track_caller]
    pub fn permutation(n: usize, key: &Key) -> Tensor {
        Tensor::random_bits([n], key).argsort(0, false)
    }
}
