//! Dense host values of the reference evaluator, and scalars of constants.

use crate::{DType, Type};
use std::fmt;
use std::hash::{Hash, Hasher};

/// One number or truth value. Equality and hash are those of the bits, so constants can be keys.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// Value of a float dtype.
    Float(f64),
    /// Value of an integer dtype, or 0/1 for bool.
    Int(i64),
}

impl Scalar {
    /// `x` as a value of `dtype`: rounded or truncated and wrapped.
    pub fn of(dtype: DType, x: f64) -> Self {
        if dtype.is_float() {
            Scalar::Float(dtype.round_float(x))
        } else {
            Scalar::Int(dtype.wrap_int(x as i64))
        }
    }

    /// As a float.
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Float(x) => x,
            Scalar::Int(x) => x as f64,
        }
    }

    /// As an integer (floats are truncated).
    pub fn as_i64(self) -> i64 {
        match self {
            Scalar::Float(x) => x as i64,
            Scalar::Int(x) => x,
        }
    }

    fn bits(self) -> (bool, u64) {
        match self {
            Scalar::Float(x) => (true, x.to_bits()),
            Scalar::Int(x) => (false, x as u64),
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

impl From<f64> for Scalar {
    fn from(x: f64) -> Self {
        Scalar::Float(x)
    }
}

impl From<i64> for Scalar {
    fn from(x: i64) -> Self {
        Scalar::Int(x)
    }
}

/// Elements of a literal, row-major: floats in f64, integers and booleans (0/1) in i64.
#[derive(Clone, Debug)]
pub enum Elements {
    /// Elements of a float dtype.
    Float(Vec<f64>),
    /// Elements of an integer dtype or bool.
    Int(Vec<i64>),
}

/// A dense host value, as the reference evaluator keeps it.
#[derive(Clone, Debug)]
pub struct Literal {
    /// Dtype and shape.
    pub ty: Type,
    /// Row-major elements.
    pub elements: Elements,
}

impl Literal {
    /// A float literal; `elements.len()` must be the number of elements of `ty`.
    pub fn float(ty: Type, elements: Vec<f64>) -> Self {
        debug_assert!(ty.dtype.is_float() && ty.elements() == elements.len(), "{ty}");
        Literal { ty, elements: Elements::Float(elements) }
    }

    /// An integer or bool literal; `elements.len()` must be the number of elements of `ty`.
    pub fn int(ty: Type, elements: Vec<i64>) -> Self {
        debug_assert!(!ty.dtype.is_float() && ty.elements() == elements.len(), "{ty}");
        Literal { ty, elements: Elements::Int(elements) }
    }

    /// Every element equal to `x`.
    pub fn splat(ty: Type, x: Scalar) -> Self {
        Literal::build(ty, |_| x)
    }

    /// Element `i` (row-major) is `f(i)`, converted to the dtype's kind.
    pub fn build(ty: Type, mut f: impl FnMut(usize) -> Scalar) -> Self {
        let n = ty.elements();
        let elements = if ty.dtype.is_float() {
            Elements::Float((0..n).map(|i| f(i).as_f64()).collect())
        } else {
            Elements::Int((0..n).map(|i| f(i).as_i64()).collect())
        };
        Literal { ty, elements }
    }

    /// Element `i` in row-major order.
    pub fn get(&self, i: usize) -> Scalar {
        match &self.elements {
            Elements::Float(v) => Scalar::Float(v[i]),
            Elements::Int(v) => Scalar::Int(v[i]),
        }
    }

    /// Elements as floats.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.elements {
            Elements::Float(v) => v.clone(),
            Elements::Int(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }

    /// Elements as integers.
    pub fn to_i64(&self) -> Vec<i64> {
        match &self.elements {
            Elements::Float(v) => v.iter().map(|&x| x as i64).collect(),
            Elements::Int(v) => v.clone(),
        }
    }

    /// Rounds or wraps every element into the dtype.
    pub fn rounded(mut self) -> Self {
        let dtype = self.ty.dtype;
        match &mut self.elements {
            Elements::Float(v) => v.iter_mut().for_each(|x| *x = dtype.round_float(*x)),
            Elements::Int(v) => v.iter_mut().for_each(|x| *x = dtype.wrap_int(*x)),
        }
        self
    }

    /// Little-endian elements in the dtype's own width.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.ty.bytes());
        for i in 0..self.ty.elements() {
            let (f, n) = (self.get(i).as_f64(), self.get(i).as_i64());
            match self.ty.dtype {
                DType::F64 => out.extend(f.to_le_bytes()),
                DType::F32 => out.extend((f as f32).to_le_bytes()),
                DType::F16 => out.extend(half::f16::from_f64(f).to_le_bytes()),
                DType::BF16 => out.extend(half::bf16::from_f64(f).to_le_bytes()),
                DType::I64 => out.extend(n.to_le_bytes()),
                DType::I32 => out.extend((n as i32).to_le_bytes()),
                DType::U32 => out.extend((n as u32).to_le_bytes()),
                DType::I16 => out.extend((n as i16).to_le_bytes()),
                DType::I8 | DType::U8 => out.push(n as u8),
                DType::Bool => out.push(u8::from(n != 0)),
            }
        }
        out
    }

    /// The literal whose little-endian bytes these are.
    ///
    /// # Errors
    /// When the length is not that of `ty`.
    pub fn from_bytes(ty: Type, bytes: &[u8]) -> crate::Result<Self> {
        if bytes.len() != ty.bytes() {
            let (want, got) = (ty.bytes(), bytes.len());
            return Err(crate::Error::new(format!("{ty} needs {want} bytes, {got} given")));
        }
        let size = ty.dtype.size();
        let dtype = ty.dtype;
        let word = |i: usize| -> [u8; 8] {
            let mut w = [0; 8];
            w[..size].copy_from_slice(&bytes[i * size..(i + 1) * size]);
            w
        };
        Ok(Literal::build(ty, |i| {
            let w = word(i);
            let u = u64::from_le_bytes(w);
            match dtype {
                DType::F64 => Scalar::Float(f64::from_bits(u)),
                DType::F32 => Scalar::Float(f64::from(f32::from_bits(u as u32))),
                DType::F16 => Scalar::Float(half::f16::from_bits(u as u16).to_f64()),
                DType::BF16 => Scalar::Float(half::bf16::from_bits(u as u16).to_f64()),
                other => Scalar::Int(other.wrap_int(u as i64)),
            }
        }))
    }
}

impl PartialEq for Literal {
    /// Same type and same bits.
    fn eq(&self, other: &Self) -> bool {
        self.ty == other.ty && (0..self.ty.elements()).all(|i| self.get(i) == other.get(i))
    }
}

impl Eq for Literal {}

impl Hash for Literal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ty.hash(state);
        (0..self.ty.elements()).for_each(|i| self.get(i).hash(state));
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Float(x) => write!(f, "{x:?}"),
            Scalar::Int(x) => write!(f, "{x}"),
        }
    }
}
