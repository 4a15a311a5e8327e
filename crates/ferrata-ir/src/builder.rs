//! Shorthands of [`Builder`]: what rules and composites are written with.

use crate::DType;
use crate::literal::Scalar;
use crate::primitive::elementwise as ops;
use crate::primitive::{
    ArgReduce, BadIndex, Broadcast, Cast, Concatenate, Constant, Dot, DynamicSlice, DynamicUpdate,
    Elementwise, ElementwiseOp, Extremum, FoldKey, Gather, Iota, RandomBits, Reduce, ReduceKind,
    Reshape, Reverse, Scatter, ScatterKind, Slice, StopGradient, Transpose, TriangularSolve,
};
use crate::program::{Builder, Value};
use crate::types::Type;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident => $op:ident),* $(,)?) => {
        impl Builder {
            $($(#[$doc])* pub fn $name(&mut self, x: Value) -> Value {
                self.apply(&ops::$op, &[x])
            })*
        }
    };
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident => $op:ident),* $(,)?) => {
        impl Builder {
            $($(#[$doc])* pub fn $name(&mut self, x: Value, y: Value) -> Value {
                self.apply(&ops::$op, &[x, y])
            })*
        }
    };
}

unary! {
    /// `-x`.
    neg => NEG,
    /// `|x|`.
    abs => ABS,
    /// -1, 0 or 1.
    sign => SIGN,
    /// Largest whole number that is not above `x`.
    floor => FLOOR,
    /// Smallest whole number that is not below `x`.
    ceil => CEIL,
    /// Nearest whole number, halves to even.
    round => ROUND,
    /// Whole part.
    trunc => TRUNC,
    /// `e^x`.
    exp => EXP,
    /// `e^x - 1`.
    expm1 => EXPM1,
    /// Natural logarithm.
    log => LOG,
    /// `log(1 + x)`.
    log1p => LOG1P,
    /// Square root.
    sqrt => SQRT,
    /// `1 / sqrt(x)`.
    rsqrt => RSQRT,
    /// `1 / (1 + e^-x)`.
    logistic => LOGISTIC,
    /// Sine.
    sin => SIN,
    /// Cosine.
    cos => COS,
    /// Tangent.
    tan => TAN,
    /// Inverse sine.
    asin => ASIN,
    /// Inverse cosine.
    acos => ACOS,
    /// Inverse tangent.
    atan => ATAN,
    /// Hyperbolic sine.
    sinh => SINH,
    /// Hyperbolic cosine.
    cosh => COSH,
    /// Hyperbolic tangent.
    tanh => TANH,
    /// Inverse hyperbolic sine.
    asinh => ASINH,
    /// Inverse hyperbolic cosine.
    acosh => ACOSH,
    /// Inverse hyperbolic tangent.
    atanh => ATANH,
    /// Error function.
    erf => ERF,
    /// `1 - erf(x)`.
    erfc => ERFC,
    /// Inverse of the error function.
    erf_inv => ERF_INV,
    /// `log |Γ(x)|`.
    lgamma => LGAMMA,
    /// Derivative of `lgamma`.
    digamma => DIGAMMA,
    /// Whether `x` is neither infinite nor NaN.
    is_finite => IS_FINITE,
    /// Logical negation.
    not => NOT,
}

binary! {
    /// `x + y`.
    add => ADD,
    /// `x - y`.
    sub => SUB,
    /// `x y`.
    mul => MUL,
    /// `x / y`.
    div => DIV,
    /// Remainder of the truncated division.
    rem => REM,
    /// The larger one.
    max => MAX,
    /// The smaller one.
    min => MIN,
    /// `x^y`.
    pow => POW,
    /// Angle of the point with ordinate `x` and abscissa `y`.
    atan2 => ATAN2,
    /// `x == y`.
    eq => EQ,
    /// `x != y`.
    ne => NE,
    /// `x < y`.
    lt => LT,
    /// `x <= y`.
    le => LE,
    /// `x > y`.
    gt => GT,
    /// `x >= y`.
    ge => GE,
    /// Logical or bitwise and.
    and => AND,
    /// Logical or bitwise or.
    or => OR,
    /// Logical or bitwise exclusive or.
    xor => XOR,
    /// Left shift of `x` by `y` bits.
    shl => SHL,
    /// Right shift of `x` by `y` bits.
    shr => SHR,
}

impl Builder {
    /// Applies an elementwise operation.
    pub fn apply(&mut self, op: &'static ElementwiseOp, inputs: &[Value]) -> Value {
        self.emit1(Elementwise(op), inputs)
    }

    /// `condition ? x : y`.
    pub fn select(&mut self, condition: Value, x: Value, y: Value) -> Value {
        self.apply(&ops::SELECT, &[condition, x, y])
    }

    /// `min(max(x, low), high)`.
    pub fn clamp(&mut self, x: Value, low: Value, high: Value) -> Value {
        self.apply(&ops::CLAMP, &[x, low, high])
    }

    /// `1 - x²`.
    pub(crate) fn one_minus_square(&mut self, x: Value) -> Value {
        let square = self.mul(x, x);
        let one = self.full_like(x, 1.0);
        self.sub(one, square)
    }

    /// `x` as `dtype`; `x` itself when it has that dtype.
    pub fn cast(&mut self, x: Value, dtype: DType) -> Value {
        if self.ty(x).dtype == dtype { x } else { self.emit1(Cast { dtype }, &[x]) }
    }

    /// A value of type `ty` with every element equal to `x`.
    pub fn full(&mut self, ty: Type, x: impl Into<Scalar>) -> Value {
        let x: Scalar = x.into();
        let value = match x {
            Scalar::Float(f) => Scalar::of(ty.dtype, f),
            Scalar::Int(i) if ty.dtype.is_float() => Scalar::of(ty.dtype, i as f64),
            Scalar::Int(i) => Scalar::Int(ty.dtype.wrap_int(i)),
        };
        self.emit1(Constant { ty, value }, &[])
    }

    /// Every element equal to `x`, with the type of `like`.
    pub fn full_like(&mut self, like: Value, x: f64) -> Value {
        self.full(self.ty(like).clone(), x)
    }

    /// Zeros with the type of `like`.
    pub fn zeros_like(&mut self, like: Value) -> Value {
        self.full_like(like, 0.0)
    }

    /// `x` times a number.
    pub fn scale(&mut self, x: Value, factor: f64) -> Value {
        let factor = self.full_like(x, factor);
        self.mul(x, factor)
    }

    /// `x` plus a number.
    pub fn offset(&mut self, x: Value, term: f64) -> Value {
        let term = self.full_like(x, term);
        self.add(x, term)
    }

    /// 0, 1, 2, … along dimension `dim` of a value of type `ty`.
    pub fn iota(&mut self, ty: Type, dim: usize) -> Value {
        self.emit1(Iota { ty, dim }, &[])
    }

    /// Dimension `i` of `x` becomes dimension `dims[i]` of the result; the others are repeated.
    pub fn broadcast(&mut self, x: Value, shape: &[usize], dims: &[usize]) -> Value {
        if self.ty(x).shape == shape {
            return x;
        }
        self.emit1(Broadcast { shape: shape.to_vec(), dims: dims.to_vec() }, &[x])
    }

    /// `x` with its dimensions aligned at the end of `shape`.
    pub fn broadcast_trailing(&mut self, x: Value, shape: &[usize]) -> Value {
        let rank = self.ty(x).rank();
        let dims: Vec<usize> = (shape.len().saturating_sub(rank)..shape.len()).collect();
        self.broadcast(x, shape, &dims)
    }

    /// `x` without the dimensions `dims` of `shape` it was reduced over, repeated along them.
    pub fn broadcast_reduced(&mut self, x: Value, shape: &[usize], dims: &[usize]) -> Value {
        let kept: Vec<usize> = (0..shape.len()).filter(|d| !dims.contains(d)).collect();
        self.broadcast(x, shape, &kept)
    }

    /// The same elements in another shape.
    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Value {
        if self.ty(x).shape == shape {
            return x;
        }
        self.emit1(Reshape { shape: shape.to_vec() }, &[x])
    }

    /// Dimension `i` of the result is dimension `permutation[i]` of `x`.
    pub fn transpose(&mut self, x: Value, permutation: &[usize]) -> Value {
        if permutation.iter().enumerate().all(|(i, &p)| i == p) {
            return x;
        }
        self.emit1(Transpose { permutation: permutation.to_vec() }, &[x])
    }

    /// Moves a dimension, keeping the order of the others.
    pub fn move_dim(&mut self, x: Value, from: usize, to: usize) -> Value {
        let mut order: Vec<usize> = (0..self.ty(x).rank()).filter(|&d| d != from).collect();
        order.insert(to.min(order.len()), from);
        self.transpose(x, &order)
    }

    /// Elements `start..limit` along one dimension.
    pub fn slice_dim(&mut self, x: Value, dim: usize, start: usize, limit: usize) -> Value {
        let shape = self.ty(x).shape.clone();
        let mut op =
            Slice { start: vec![0; shape.len()], stride: vec![1; shape.len()], limit: shape };
        (op.start[dim], op.limit[dim]) = (start, limit);
        self.emit1(op, &[x])
    }

    /// Combines the elements along `dims`, which disappear.
    pub fn reduce(&mut self, kind: ReduceKind, x: Value, dims: &[usize]) -> Value {
        if dims.is_empty() {
            return x;
        }
        let mut dims = dims.to_vec();
        dims.sort_unstable();
        self.emit1(Reduce { kind, dims }, &[x])
    }

    /// Sum along `dims`, which disappear.
    pub fn sum(&mut self, x: Value, dims: &[usize]) -> Value {
        self.reduce(ReduceKind::Sum, x, dims)
    }

    /// Index (i64) of the first extreme element along `dim`, which disappears.
    pub fn arg_reduce(&mut self, kind: Extremum, x: Value, dim: usize) -> Value {
        self.emit1(ArgReduce { kind, dim }, &[x])
    }

    /// The values one after the other along `dim`.
    pub fn concatenate(&mut self, parts: &[Value], dim: usize) -> Value {
        self.emit1(Concatenate { dim }, parts)
    }

    /// The dimensions `dims` run backwards.
    pub fn flip(&mut self, x: Value, dims: &[usize]) -> Value {
        self.emit1(Reverse { dims: dims.to_vec() }, &[x])
    }

    /// Identity whose derivative is zero.
    pub fn stop_gradient(&mut self, x: Value) -> Value {
        self.emit1(StopGradient {}, &[x])
    }

    /// Slices of `x` at `indices` along `dim`: `x [A.., n, C..]` and indices `[P..]` give
    /// `[A.., P.., C..]`. An embedding is `take(table, ids, 0, bad)`.
    pub fn take(&mut self, x: Value, indices: Value, dim: usize, bad: BadIndex) -> Value {
        let mut shape = self.ty(indices).shape.clone();
        let positions = shape.len();
        shape.push(1);
        let indices = self.reshape(indices, &shape);
        let x = self.move_dim(x, dim, 0);
        let y = self.emit1(Gather { batch: 0, indexed: 1, bad }, &[x, indices]);
        // The positions lead; the dimensions `A` go before them.
        let rank = self.ty(y).rank();
        let order: Vec<usize> =
            (positions..positions + dim).chain(0..positions).chain(positions + dim..rank).collect();
        self.transpose(y, &order)
    }

    /// Elements of `x` at `indices` along `dim`; in all other dimensions the two have one size,
    /// and an element is taken from its own place.
    pub fn take_along(&mut self, x: Value, indices: Value, dim: usize, bad: BadIndex) -> Value {
        let last = self.ty(x).rank().saturating_sub(1);
        let (x, indices) = (self.move_dim(x, dim, last), self.index_column(indices, dim));
        let y = self.emit1(Gather { batch: last, indexed: 1, bad }, &[x, indices]);
        self.move_dim(y, last, dim)
    }

    /// The counterpart of [`Builder::take_along`]: `x` with `updates` combined into the places
    /// that `indices` name along `dim`.
    pub fn put_along(
        &mut self,
        kind: ScatterKind,
        x: Value,
        indices: Value,
        updates: Value,
        dim: usize,
    ) -> Value {
        let last = self.ty(x).rank().saturating_sub(1);
        let indices = self.index_column(indices, dim);
        let (x, updates) = (self.move_dim(x, dim, last), self.move_dim(updates, dim, last));
        let op = Scatter { batch: last, indexed: 1, kind, bad: BadIndex::Drop };
        let y = self.emit1(op, &[x, indices, updates]);
        self.move_dim(y, last, dim)
    }

    /// Indices along `dim` in the form that gather and scatter take: `[.., n, 1]`.
    fn index_column(&mut self, indices: Value, dim: usize) -> Value {
        let last = self.ty(indices).rank().saturating_sub(1);
        let indices = self.move_dim(indices, dim, last);
        let mut shape = self.ty(indices).shape.clone();
        shape.push(1);
        self.reshape(indices, &shape)
    }

    /// The window of shape `sizes` of `x` at the indices `starts`.
    pub fn dynamic_slice(&mut self, x: Value, starts: Value, sizes: &[usize]) -> Value {
        self.emit1(DynamicSlice { sizes: sizes.to_vec() }, &[x, starts])
    }

    /// `x` with the window at the indices `starts` replaced by `update`.
    pub fn dynamic_update(&mut self, x: Value, update: Value, starts: Value) -> Value {
        self.emit1(DynamicUpdate {}, &[x, update, starts])
    }

    /// Random u32 of `shape` for each of the keys u32`[.., 2]`.
    pub fn random_bits(&mut self, key: Value, shape: &[usize]) -> Value {
        self.emit1(RandomBits { shape: shape.to_vec() }, &[key])
    }

    /// The keys that `data` u32`[..]` makes of keys u32`[.., 2]`.
    pub fn fold_key(&mut self, key: Value, data: Value) -> Value {
        self.emit1(FoldKey {}, &[key, data])
    }

    /// Matrix product of the last two dimensions; the leading ones are batch dimensions.
    pub fn matmul(&mut self, x: Value, y: Value) -> Value {
        let batch = self.ty(x).rank().saturating_sub(2);
        let dims: Vec<usize> = (0..batch).collect();
        self.dot(x, y, (&dims, &dims), (&[batch + 1], &[batch]))
    }

    /// The last two dimensions exchanged.
    pub fn matrix_transpose(&mut self, x: Value) -> Value {
        let rank = self.ty(x).rank();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank > 1 {
            order.swap(rank - 2, rank - 1);
        }
        self.transpose(x, &order)
    }

    /// Matrices with zeros above the diagonal, and on it if `strict`.
    pub fn lower_triangle(&mut self, x: Value, strict: bool) -> Value {
        self.part_of_matrix(x, if strict { &ops::GT } else { &ops::GE })
    }

    /// Matrices with zeros below the diagonal.
    pub fn upper_triangle(&mut self, x: Value) -> Value {
        self.part_of_matrix(x, &ops::LE)
    }

    /// The diagonals `[.., k]` of matrices `[.., m, n]`, `k` being the smaller size.
    pub fn matrix_diagonal(&mut self, x: Value) -> Value {
        let shape = self.ty(x).shape.clone();
        let last = shape.len().saturating_sub(1);
        let on = self.part_of_matrix(x, &ops::EQ);
        if last > 0 && shape[last - 1] < shape[last] {
            self.sum(on, &[last])
        } else {
            self.sum(on, &[last.saturating_sub(1)])
        }
    }

    /// Elements of matrices whose row and column compare so, else 0.
    pub(crate) fn part_of_matrix(&mut self, x: Value, compare: &'static ElementwiseOp) -> Value {
        let ty = self.ty(x).with_dtype(DType::I64);
        let last = ty.rank().saturating_sub(1);
        let (row, column) =
            (self.iota(ty.clone(), last.saturating_sub(1)), self.iota(ty.clone(), last));
        let keep = self.apply(compare, &[row, column]);
        let zero = self.zeros_like(x);
        self.select(keep, x, zero)
    }

    /// `T⁻¹ x`, `T` being the lower or upper triangle of `t`, with ones on its diagonal if `unit`.
    pub fn solve_triangular(&mut self, t: Value, x: Value, lower: bool, unit: bool) -> Value {
        self.emit1(TriangularSolve { lower, unit }, &[t, x])
    }

    /// `x T⁻¹`, `T` being the lower or upper triangle of `t`.
    pub fn divide_triangular(&mut self, x: Value, t: Value, lower: bool) -> Value {
        let (t, x) = (self.matrix_transpose(t), self.matrix_transpose(x));
        let y = self.solve_triangular(t, x, !lower, false);
        self.matrix_transpose(y)
    }

    /// General product: `batch` and `contract` pair dimensions of `x` with dimensions of `y`. The
    /// result has the batch dimensions, then the free ones of `x`, then the free ones of `y`.
    pub fn dot(
        &mut self,
        x: Value,
        y: Value,
        batch: (&[usize], &[usize]),
        contract: (&[usize], &[usize]),
    ) -> Value {
        let op = Dot {
            left_batch: batch.0.to_vec(),
            right_batch: batch.1.to_vec(),
            left_contract: contract.0.to_vec(),
            right_contract: contract.1.to_vec(),
        };
        self.emit1(op, &[x, y])
    }

    /// Sum of two optional values, `None` being zero.
    pub fn add_some(&mut self, x: Option<Value>, y: Option<Value>) -> Option<Value> {
        match (x, y) {
            (Some(x), Some(y)) => Some(self.add(x, y)),
            (x, y) => x.or(y),
        }
    }

    /// Gives every input the outermost dimension `size` that the batched ones have.
    pub fn batch_all(&mut self, inputs: &[Value], batched: &[bool], size: usize) -> Vec<Value> {
        inputs
            .iter()
            .zip(batched)
            .map(|(&x, &has)| if has { x } else { self.add_batch(x, size) })
            .collect()
    }

    /// Repeats `x` along a new outermost dimension.
    pub fn add_batch(&mut self, x: Value, size: usize) -> Value {
        let mut shape = vec![size];
        shape.extend(&self.ty(x).shape);
        let dims: Vec<usize> = (1..shape.len()).collect();
        self.emit1(Broadcast { shape, dims }, &[x])
    }
}
