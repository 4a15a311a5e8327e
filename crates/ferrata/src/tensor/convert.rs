//! Tensors from host values and back.

use super::{State, Tensor};
use crate::device::default_device;
use ferrata_ir::{DType, Error, Result, Type};
use half::{bf16, f16};
use std::borrow::Cow;

/// A Rust type that can be a tensor element.
pub trait Element: Copy + Send + Sync + 'static {
    /// The element type.
    const DTYPE: DType;

    /// Little-endian bytes.
    fn bytes(elements: &[Self]) -> Cow<'_, [u8]>;

    /// From little-endian bytes.
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! elements {
    ($($ty:ty => $dtype:ident),* $(,)?) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;

            fn bytes(elements: &[Self]) -> Cow<'_, [u8]> {
                if cfg!(target_endian = "little") {
                    return Cow::Borrowed(bytemuck::cast_slice(elements));
                }
                Cow::Owned(elements.iter().flat_map(|x| x.to_le_bytes()).collect())
            }

            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                if cfg!(target_endian = "little") {
                    let mut out = vec![<$ty>::default(); bytes.len() / size_of::<$ty>()];
                    let whole = out.len() * size_of::<$ty>();
                    bytemuck::cast_slice_mut(&mut out).copy_from_slice(&bytes[..whole]);
                    return out;
                }
                let word = |c: &[u8]| <$ty>::from_le_bytes(c.try_into().unwrap_or_default());
                bytes.chunks_exact(size_of::<$ty>()).map(word).collect()
            }
        }
    )*};
}

elements! {
    f64 => F64, f32 => F32, f16 => F16, bf16 => BF16,
    i64 => I64, i32 => I32, i16 => I16, i8 => I8, u8 => U8, u32 => U32,
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn bytes(elements: &[Self]) -> Cow<'_, [u8]> {
        Cow::Owned(elements.iter().map(|&x| u8::from(x)).collect())
    }

    fn from_bytes(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&x| x != 0).collect()
    }
}

/// Host values with a shape: numbers, slices, vectors and nested arrays.
pub trait Host {
    /// Number type at the bottom.
    type Item: Element;
    /// Shape; an error if rows have different lengths.
    fn shape(&self) -> Result<Vec<usize>>;
    /// Appends the elements, row-major.
    fn collect(&self, out: &mut Vec<Self::Item>);
}

macro_rules! scalars {
    ($($ty:ty),*) => {$(
        impl Host for $ty {
            type Item = $ty;
            fn shape(&self) -> Result<Vec<usize>> {
                Ok(Vec::new())
            }
            fn collect(&self, out: &mut Vec<$ty>) {
                out.push(*self);
            }
        }
    )*};
}

scalars!(f64, f32, f16, bf16, i64, i32, i16, i8, u8, u32, bool);

impl<T: Host> Host for [T] {
    type Item = T::Item;

    fn shape(&self) -> Result<Vec<usize>> {
        let mut shape = vec![self.len()];
        if let Some(first) = self.first() {
            let row = first.shape()?;
            for (i, other) in self.iter().enumerate() {
                let other = other.shape()?;
                if other != row {
                    return Err(Error::new(format!(
                        "rows have different shapes: {row:?} at 0, {other:?} at {i}"
                    )));
                }
            }
            shape.extend(row);
        }
        Ok(shape)
    }

    fn collect(&self, out: &mut Vec<T::Item>) {
        self.iter().for_each(|x| x.collect(out));
    }
}

macro_rules! like_slice {
    ([$($generics:tt)*] $ty:ty) => {
        impl<$($generics)*> Host for $ty {
            type Item = T::Item;
            fn shape(&self) -> Result<Vec<usize>> {
                self[..].shape()
            }
            fn collect(&self, out: &mut Vec<T::Item>) {
                self[..].collect(out);
            }
        }
    };
}

like_slice!([T: Host, const N: usize] [T; N]);
like_slice!([T: Host] Vec<T>);

impl<T: Host + ?Sized> Host for &T {
    type Item = T::Item;

    fn shape(&self) -> Result<Vec<usize>> {
        (**self).shape()
    }

    fn collect(&self, out: &mut Vec<T::Item>) {
        (**self).collect(out);
    }
}

impl<H: Host> From<H> for Tensor {
    /// Copies host values: `Tensor::from(1.5f32)`, `Tensor::from([[1, 2], [3, 4]])`.
    #[track_caller]
    fn from(values: H) -> Self {
        Tensor::op("from", &[], || {
            let shape = values.shape()?;
            let mut elements = Vec::with_capacity(shape.iter().product());
            values.collect(&mut elements);
            Ok(Tensor::from_slice(&elements, &shape))
        })
    }
}

/// What can be taken where a tensor is wanted: tensors, references to them, and host values.
pub trait IntoTensor {
    /// The tensor.
    #[track_caller]
    fn into_tensor(self) -> Tensor;
}

impl IntoTensor for Tensor {
    fn into_tensor(self) -> Tensor {
        self
    }
}

impl IntoTensor for &Tensor {
    fn into_tensor(self) -> Tensor {
        self.clone()
    }
}

impl<H: Host> IntoTensor for H {
    #[track_caller]
    fn into_tensor(self) -> Tensor {
        Tensor::from(self)
    }
}

impl Tensor {
    /// Copies row-major elements; their number must be that of the shape.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let x = Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6], &[2, 3]);
    /// assert_eq!(x.at((1, 2)).item::<i64>()?, 6);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn from_slice<T: Element>(elements: &[T], shape: &[usize]) -> Tensor {
        Tensor::op("from_slice", &[], || {
            let ty = Type::new(T::DTYPE, shape);
            if ty.elements() != elements.len() {
                let (want, got) = (ty.elements(), elements.len());
                return Err(Error::new(format!("{ty} has {want} elements, but {got} are given")));
            }
            let device = default_device();
            let buffer = device.backend().upload(ty, &T::bytes(elements))?;
            Ok(Tensor::concrete(buffer, device))
        })
    }

    /// Copies row-major little-endian bytes.
    #[track_caller]
    pub fn from_bytes(ty: Type, bytes: &[u8]) -> Tensor {
        Tensor::op("from_bytes", &[], || {
            let device = default_device();
            let buffer = device.backend().upload(ty, bytes)?;
            Ok(Tensor::concrete(buffer, device))
        })
    }

    /// The row-major elements, computed if necessary.
    ///
    /// # Errors
    /// The error that the tensor holds, or `T` is not its dtype.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if let State::Failed(error) = &*self.lock() {
            return Err(error.clone());
        }
        if self.dtype() != T::DTYPE {
            let (ty, want) = (self.ty(), T::DTYPE);
            return Err(Error::new(format!("{ty} does not hold elements of type {want}"))
                .help(format!("read {} elements, or cast to {want} first", self.dtype())));
        }
        Ok(T::from_bytes(&self.to_bytes()?))
    }

    /// The only element, computed if necessary.
    ///
    /// # Errors
    /// The error that the tensor holds, or there is not exactly one element, or `T` is not the
    /// dtype.
    pub fn item<T: Element>(&self) -> Result<T> {
        let elements = self.to_vec::<T>()?;
        match elements[..] {
            [x] => Ok(x),
            _ => {
                let (ty, n) = (self.ty(), elements.len());
                Err(Error::new(format!("{ty} has {n} elements, not one"))
                    .help("reduce it, for example with mean(..), or read it with to_vec"))
            }
        }
    }

    /// The row-major little-endian elements, computed if necessary.
    ///
    /// # Errors
    /// The error that the tensor holds, or what the device reports.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let stored = self.stored()?;
        stored.device.backend().download(&stored.buffer)
    }
}
