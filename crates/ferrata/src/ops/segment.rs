//! Reductions over segments, and searches.

use crate::tensor::Tensor;
use ferrata_ir::Error;
use ferrata_ir::composite::{self, Segment};

impl Tensor {
    /// Sums of the rows (along dimension 0) that have the same id: `[count, ..]`, 0 where there are
    /// none. `ids` are i64 or i32, one for each row, in any order; others than `0..count` are left
    /// out.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let x = Tensor::from([1.0f32, 2.0, 3.0, 4.0]);
    /// let ids = Tensor::from([2i64, 0, 2, 2]);
    /// assert_eq!(x.segment_sum(&ids, 3).to_vec::<f32>()?, [2.0, 0.0, 8.0]);
    /// assert_eq!(x.segment_prod(&ids, 3).to_vec::<f32>()?, [2.0, 1.0, 12.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn segment_sum(&self, ids: &Tensor, count: usize) -> Tensor {
        self.segments("segment_sum", ids, count, Segment::Sum)
    }

    /// As [`Tensor::segment_sum`], means; 0 where there are no rows.
    #[track_caller]
    pub fn segment_mean(&self, ids: &Tensor, count: usize) -> Tensor {
        self.segments("segment_mean", ids, count, Segment::Mean)
    }

    /// As [`Tensor::segment_sum`], products; 1 where there are no rows. Takes time for every row
    /// and segment.
    #[track_caller]
    pub fn segment_prod(&self, ids: &Tensor, count: usize) -> Tensor {
        self.segments("segment_prod", ids, count, Segment::Product)
    }

    /// As [`Tensor::segment_sum`], the largest elements; the least value of the dtype where there
    /// are no rows. Equal ones share the gradient.
    #[track_caller]
    pub fn segment_max(&self, ids: &Tensor, count: usize) -> Tensor {
        self.segments("segment_max", ids, count, Segment::Max)
    }

    /// As [`Tensor::segment_sum`], the smallest elements; the greatest value of the dtype where
    /// there are no rows. Equal ones share the gradient.
    #[track_caller]
    pub fn segment_min(&self, ids: &Tensor, count: usize) -> Tensor {
        self.segments("segment_min", ids, count, Segment::Min)
    }

    #[track_caller]
    fn segments(&self, name: &str, ids: &Tensor, count: usize, how: Segment) -> Tensor {
        Tensor::built1(name, &[self, ids], |b, x| composite::segment(b, x[0], x[1], count, how))
    }

    /// For each of `values` the place (i64) where it belongs in this rising tensor: before elements
    /// that equal it, or, from the `right`, after them. One line `[n]` serves values of any shape;
    /// else lines `[.., n]` are searched for values `[.., m]`.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let edges = Tensor::from([1.0f32, 3.0, 5.0]);
    /// let x = Tensor::from([[0.0f32, 3.0], [4.0, 9.0]]);
    /// assert_eq!(edges.searchsorted(&x, false).to_vec::<i64>()?, [0, 1, 2, 3]);
    /// assert_eq!(x.bucketize(&edges, true).to_vec::<i64>()?, [0, 2, 2, 3]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn searchsorted(&self, values: &Tensor, right: bool) -> Tensor {
        Tensor::op("searchsorted", &[self, values], || {
            let search = |values: &Tensor| {
                Tensor::built1("searchsorted", &[self, values], |b, x| {
                    composite::searchsorted(b, x[0], x[1], right)
                })
            };
            Ok(match self.rank() {
                1 => search(&values.reshape([-1])).reshape(values.shape()),
                _ => search(values),
            })
        })
    }

    /// For each element the number (i64) of the bucket between rising `boundaries [n]` that it is
    /// in; one that equals a boundary is below it, or, from the `right`, above it.
    #[track_caller]
    pub fn bucketize(&self, boundaries: &Tensor, right: bool) -> Tensor {
        Tensor::op("bucketize", &[self, boundaries], || {
            if boundaries.rank() != 1 {
                return Err(Error::new("boundaries have one dimension"));
            }
            Ok(boundaries.searchsorted(self, right))
        })
    }

    /// Indices (i64 `[count, rank]`) of the first `count` entries that are not 0, row-major, and how
    /// many such entries there are in all (i64 scalar). Missing rows hold the sizes: indices outside,
    /// at which reading gives 0 and writing changes nothing. Unlike [`Tensor::nonzero`], it may be
    /// traced.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let (places, found) = Tensor::from([[0i64, 7], [5, 0]]).nonzero_up_to(3);
    /// assert_eq!(places.to_vec::<i64>()?, [0, 1, 1, 0, 2, 2]);
    /// assert_eq!(found.item::<i64>()?, 2);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn nonzero_up_to(&self, count: usize) -> (Tensor, Tensor) {
        let mut results = Tensor::op_many("nonzero_up_to", &[self], 2, || {
            Ok(Tensor::built("nonzero_up_to", &[&self.ne(0)], 2, |b, x| {
                let (places, found) = composite::nonzero(b, x[0], count);
                vec![places, found]
            }))
        });
        let found = results.swap_remove(1);
        (results.swap_remove(0), found)
    }
}
