//! Host arrays, samples and batches.

use std::collections::BTreeMap;

use super::{Error, Result};

/// A row-major array on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostArray {
    /// The size of every dimension.
    pub shape: Vec<usize>,
    /// The elements; their number is the product of the shape.
    pub data: HostData,
}

/// The elements of a [`HostArray`].
#[derive(Clone, Debug, PartialEq)]
pub enum HostData {
    /// Token ids, classes, indices.
    I64(Vec<i64>),
    /// Features, weights.
    F32(Vec<f32>),
}

/// One example of a dataset: arrays by name.
pub type Sample = BTreeMap<String, HostArray>;

/// Several samples, stacked: every array has a first dimension more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The arrays by name; language models use `input_ids` and `targets`.
    pub arrays: BTreeMap<String, HostArray>,
}

impl HostArray {
    /// An array of integers.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the number of values is not the product of the shape.
    pub fn i64(shape: &[usize], values: Vec<i64>) -> Result<HostArray> {
        HostArray { shape: shape.to_vec(), data: HostData::I64(values) }.checked()
    }

    /// An array of floats.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the number of values is not the product of the shape.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Result<HostArray> {
        HostArray { shape: shape.to_vec(), data: HostData::F32(values) }.checked()
    }

    /// The integers, if it holds integers.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.data {
            HostData::I64(values) => Some(values),
            HostData::F32(_) => None,
        }
    }

    /// The floats, if it holds floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            HostData::F32(values) => Some(values),
            HostData::I64(_) => None,
        }
    }

    fn checked(self) -> Result<HostArray> {
        let count = match &self.data {
            HostData::I64(values) => values.len(),
            HostData::F32(values) => values.len(),
        };
        if self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) == Some(count) {
            return Ok(self);
        }
        let shape = &self.shape;
        let what = format!("{count} values do not fit the shape {shape:?}; give one per element");
        Err(Error::Dataset(what))
    }
}

impl Batch {
    /// The array `name`.
    ///
    /// # Errors
    /// [`Error::Dataset`] that lists the arrays there are.
    pub fn get(&self, name: &str) -> Result<&HostArray> {
        self.arrays.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.arrays.keys().map(String::as_str).collect();
            let known = known.join(", ");
            Error::Dataset(format!("the batch has no array {name:?}; it has: {known}"))
        })
    }

    /// The integers of array `name`.
    ///
    /// # Errors
    /// [`Error::Dataset`] if there is no such array or it holds floats.
    pub fn integers(&self, name: &str) -> Result<&[i64]> {
        self.get(name)?.as_i64().ok_or_else(|| {
            Error::Dataset(format!("the array {name:?} of the batch holds floats, not integers"))
        })
    }
}

/// Examples that can be had in any order.
///
/// ```
/// use ferrata::data::{Dataset, HostArray, Result, Sample};
///
/// struct Squares;
///
/// impl Dataset for Squares {
///     fn len(&self) -> usize {
///         100
///     }
///
///     fn get(&self, index: usize) -> Result<Sample> {
///         let x = index as f32;
///         Ok(Sample::from([
///             ("x".to_owned(), HostArray::f32(&[1], vec![x])?),
///             ("y".to_owned(), HostArray::f32(&[], vec![x * x])?),
///         ]))
///     }
/// }
///
/// let batch = ferrata::data::collate(&[Squares.get(2)?, Squares.get(3)?])?;
/// assert_eq!(batch.get("y")?.as_f32(), Some(&[4.0, 9.0][..]));
/// # Ok::<(), ferrata::data::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample `index`, which is below [`Dataset::len`]. All samples have the same names,
    /// shapes and types.
    ///
    /// # Errors
    /// Whatever keeps the sample from being read.
    fn get(&self, index: usize) -> Result<Sample>;
}

/// Stacks samples into a batch, in order.
///
/// # Errors
/// [`Error::Dataset`] that names the array if the samples differ in names, shapes or types, or if
/// there are none.
pub fn collate(samples: &[Sample]) -> Result<Batch> {
    let Some(first) = samples.first() else {
        return Err(Error::Dataset("a batch needs at least one sample; give some".into()));
    };
    let mut batch = Batch::default();
    for (name, array) in first {
        let mut shape = vec![samples.len()];
        shape.extend(&array.shape);
        let mut data = match &array.data {
            HostData::I64(values) => {
                HostData::I64(Vec::with_capacity(values.len() * samples.len()))
            }
            HostData::F32(values) => {
                HostData::F32(Vec::with_capacity(values.len() * samples.len()))
            }
        };
        for (number, sample) in samples.iter().enumerate() {
            let same = sample.get(name).filter(|other| other.shape == array.shape);
            match (&mut data, same.map(|other| &other.data)) {
                (HostData::I64(all), Some(HostData::I64(values))) => all.extend(values),
                (HostData::F32(all), Some(HostData::F32(values))) => all.extend(values),
                _ => return Err(differs(name, number, array, sample)),
            }
        }
        batch.arrays.insert(name.clone(), HostArray { shape, data });
    }
    for (number, sample) in samples.iter().enumerate() {
        if let Some(name) = sample.keys().find(|name| !first.contains_key(*name)) {
            let what =
                format!("sample {number} of a batch has an array {name:?}, the first has not");
            return Err(Error::Dataset(what));
        }
    }
    Ok(batch)
}

fn differs(name: &str, number: usize, first: &HostArray, sample: &Sample) -> Error {
    let describe = |array: &HostArray| match &array.data {
        HostData::I64(_) => format!("i64 {:?}", array.shape),
        HostData::F32(_) => format!("f32 {:?}", array.shape),
    };
    let other = sample.get(name).map_or_else(|| "absent".to_owned(), describe);
    let first = describe(first);
    Error::Dataset(format!(
        "array {name:?} is {first} in the first sample of a batch and {other} in sample {number}; \
         samples must agree"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, array: HostArray) -> Sample {
        Sample::from([(name.to_owned(), array)])
    }

    #[test]
    fn samples_are_stacked() {
        let a = sample("x", HostArray::i64(&[2], vec![1, 2]).unwrap());
        let b = sample("x", HostArray::i64(&[2], vec![3, 4]).unwrap());
        let batch = collate(&[a, b]).unwrap();
        assert_eq!(batch.get("x").unwrap().shape, [2, 2]);
        assert_eq!(batch.integers("x").unwrap(), [1, 2, 3, 4]);
        assert!(batch.get("y").unwrap_err().to_string().contains("it has: x"));
    }

    #[test]
    fn samples_that_differ_are_named() {
        let a = || sample("x", HostArray::i64(&[2], vec![1, 2]).unwrap());
        for (b, expected) in [
            (sample("x", HostArray::i64(&[1], vec![1]).unwrap()), "i64 [1] in sample 1"),
            (sample("x", HostArray::f32(&[2], vec![1.0; 2]).unwrap()), "f32 [2] in sample 1"),
            (sample("y", HostArray::i64(&[2], vec![1, 2]).unwrap()), "absent in sample 1"),
        ] {
            let error = collate(&[a(), b]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("\"x\""), "{error}");
        }
        let mut more = a();
        more.insert("z".into(), HostArray::f32(&[], vec![0.0]).unwrap());
        assert!(collate(&[a(), more]).unwrap_err().to_string().contains("\"z\""));
        assert!(collate(&[]).is_err());
        assert!(HostArray::i64(&[2, 2], vec![1]).is_err());
    }
}
