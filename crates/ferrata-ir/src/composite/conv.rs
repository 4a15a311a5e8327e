//! Convolutions with groups, padding and bias; sliding windows as columns and back.

use super::{
    AttributeList, call, dims_attribute, expect_dtype, expect_float, expect_shape, function,
};
use crate::error::{Error, Result};
use crate::primitive::{Attribute, Convolution, Pad, Windows, window_count};
use crate::program::{Builder, Value};
use crate::types::Type;

/// How a kernel moves over the spatial dimensions of a value `[batch, channels, spatial..]`.
///
/// ```
/// use ferrata_ir::composite::Conv;
/// // A 3 × 3 kernel that keeps the size.
/// let conv = Conv::new(2).padding(1);
/// assert_eq!((conv.padding, conv.groups), (vec![(1, 1); 2], 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Step of the kernel, for each spatial dimension.
    pub stride: Vec<usize>,
    /// Zeros before and after; negative amounts crop.
    pub padding: Vec<(i64, i64)>,
    /// Step from one element of the kernel to the next.
    pub dilation: Vec<usize>,
    /// Channels fall into so many groups, each with kernels of its own.
    pub groups: usize,
}

impl Conv {
    /// Unit steps over so many spatial dimensions, without padding.
    pub fn new(spatial: usize) -> Self {
        Conv {
            stride: vec![1; spatial],
            padding: vec![(0, 0); spatial],
            dilation: vec![1; spatial],
            groups: 1,
        }
    }

    /// The same with this step in all dimensions.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride.fill(stride);
        self
    }

    /// The same with so many zeros at both ends of all dimensions.
    #[must_use]
    pub fn padding(mut self, padding: i64) -> Self {
        self.padding.fill((padding, padding));
        self
    }

    /// The same with this step inside the kernel in all dimensions.
    #[must_use]
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.dilation.fill(dilation);
        self
    }

    /// The same with groups of channels.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Conv { groups, ..self }
    }

    /// Number of spatial dimensions.
    pub fn spatial(&self) -> usize {
        self.stride.len()
    }

    fn attributes(&self) -> AttributeList {
        let padding = self.padding.iter().flat_map(|p| [p.0, p.1]).collect();
        vec![
            ("stride", dims_attribute(&self.stride)),
            ("padding", Attribute::Ints(padding)),
            ("dilation", dims_attribute(&self.dilation)),
            ("groups", Attribute::Int(self.groups as i64)),
        ]
    }

    /// Checks ranks, dtypes and the bias of `outputs` channels; `channels` are those of `x` that
    /// the kernel speaks of.
    fn check(&self, types: &[Type], channels: usize, outputs: usize) -> Result<()> {
        let (x, w, n) = (&types[0], &types[1], self.spatial());
        expect_float("the operand", x)?;
        expect_dtype("the kernel", w, x.dtype)?;
        if x.shape[1] != channels || self.groups == 0 || !outputs.is_multiple_of(self.groups) {
            return Err(Error::new(format!(
                "a kernel {w} in {} groups does not fit {} channels of {x}",
                self.groups, x.shape[1]
            )));
        }
        if [self.padding.len(), self.dilation.len()].iter().any(|&l| l != n) {
            return Err(Error::new("stride, padding and dilation differ in length")
                .help("give one for each spatial dimension"));
        }
        match types.get(2) {
            Some(bias) => {
                expect_dtype("the bias", bias, x.dtype)?;
                expect_shape("the bias", bias, &[outputs])
            }
            None => Ok(()),
        }
    }

    fn expect_ranks(&self, types: &[Type]) -> Result<()> {
        let (x, w, rank) = (&types[0], &types[1], self.spatial() + 2);
        if x.rank() == rank && w.rank() == rank {
            return Ok(());
        }
        Err(Error::new(format!(
            "needs an operand [batch, channels, spatial..] and a kernel with {} spatial \
             dimensions each, but got {x} and {w}",
            self.spatial()
        )))
    }
}

/// `conv`: the cross-correlation of `x [N, C, spatial..]` with `weight [O, C / groups, kernel..]`,
/// plus `bias [O]`: `[N, O, positions..]`. Attributes: those of [`Conv`].
pub fn conv(b: &mut Builder, x: Value, weight: Value, bias: Option<Value>, conv: &Conv) -> Value {
    let inputs: Vec<Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    call(b, "conv", &inputs, 1, |types| {
        conv.expect_ranks(types)?;
        let (g, outputs) = (conv.groups, types[1].shape[0]);
        conv.check(types, types[1].shape[1] * g, outputs)?;
        function("conv", conv.attributes(), types, |b, inputs| {
            let x = grouped(b, inputs[0], 1, g);
            let w = grouped(b, inputs[1], 0, g);
            let op = Convolution {
                stride: conv.stride.clone(),
                dilation: conv.dilation.clone(),
                spread: vec![1; conv.spatial()],
                low: conv.padding.iter().map(|p| p.0).collect(),
                high: conv.padding.iter().map(|p| p.1).collect(),
            };
            vec![convolved(b, op, [x, w], inputs.get(2).copied())]
        })
    })[0]
}

/// `conv_transpose`: the gradient of [`conv`] by its operand, as an operation: `x [N, C,
/// spatial..]` and `weight [C, O / groups, kernel..]` give `[N, O, positions..]`, with
/// `(size - 1) stride - padding + dilation (kernel - 1) + output_padding + 1` positions in each
/// spatial dimension. Attributes: those of [`Conv`], and `output_padding`.
pub fn conv_transpose(
    b: &mut Builder,
    x: Value,
    weight: Value,
    bias: Option<Value>,
    conv: &Conv,
    output_padding: &[usize],
) -> Value {
    let inputs: Vec<Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    call(b, "conv_transpose", &inputs, 1, |types| {
        conv.expect_ranks(types)?;
        let (g, w, n) = (conv.groups, &types[1], conv.spatial());
        conv.check(types, w.shape[0], w.shape[1] * g)?;
        if output_padding.len() != n || !w.shape[0].is_multiple_of(g) {
            return Err(Error::new(format!(
                "a kernel {w} in {g} groups with the output padding {output_padding:?} does not \
                 fit {}",
                types[0]
            )));
        }
        let mut attributes = conv.attributes();
        attributes.push(("output_padding", dims_attribute(output_padding)));
        function("conv_transpose", attributes, types, |b, inputs| {
            let x = grouped(b, inputs[0], 1, g);
            let w = grouped(b, inputs[1], 0, g);
            // [G, C, O, K..] to [G, O, C, K..], backwards in K.
            let spatial: Vec<usize> = (3..3 + n).collect();
            let order: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + n).collect();
            let w = b.transpose(w, &order);
            let w = b.flip(w, &spatial);
            let reach = |d: usize| (conv.dilation[d] * (types[1].shape[2 + d] - 1)) as i64;
            let end = |d: usize| output_padding[d] as i64;
            let op = Convolution {
                stride: vec![1; n],
                dilation: conv.dilation.clone(),
                spread: conv.stride.clone(),
                low: (0..n).map(|d| reach(d) - conv.padding[d].0).collect(),
                high: (0..n).map(|d| reach(d) - conv.padding[d].1 + end(d)).collect(),
            };
            vec![convolved(b, op, [x, w], inputs.get(2).copied())]
        })
    })[0]
}

/// Dimension `dim` as (`groups`, the rest).
fn grouped(b: &mut Builder, x: Value, dim: usize, groups: usize) -> Value {
    let mut shape = b.ty(x).shape.clone();
    shape[dim] /= groups;
    shape.insert(dim, groups);
    b.reshape(x, &shape)
}

/// The convolution of a grouped operand and kernel, without groups, plus a bias per channel.
fn convolved(b: &mut Builder, op: Convolution, [x, w]: [Value; 2], bias: Option<Value>) -> Value {
    let y = b.emit1(op, &[x, w]);
    let mut shape = b.ty(y).shape.clone();
    if shape.len() < 3 {
        // The operand was refused; the builder knows why.
        return y;
    }
    let groups = shape.remove(1);
    shape[1] *= groups;
    let y = b.reshape(y, &shape);
    let Some(bias) = bias else { return y };
    let bias = b.broadcast(bias, &shape, &[1]);
    b.add(y, bias)
}

/// `unfold`: the windows of a kernel of these `sizes` over `x [N, C, spatial..]` as columns
/// `[N, C sizes.., positions]`: rows in the order channel, then place in the window; positions
/// row-major. Attributes: `sizes` and those of [`Conv`] but `groups`.
pub fn unfold(b: &mut Builder, x: Value, sizes: &[usize], conv: &Conv) -> Value {
    call(b, "unfold", &[x], 1, |types| {
        let positions = conv.positions(&types[0], sizes)?;
        function("unfold", conv.with_sizes(sizes), types, |b, inputs| {
            let n = conv.spatial();
            let x = padded(b, inputs[0], &conv.padding);
            // [N, C, P0, K0, P1, K1, …] to [N, C, K.., P..].
            let windows = (0..n).fold(x, |x, d| b.emit1(conv.windows(sizes, d), &[x]));
            let kernel = (0..n).map(|d| 3 + 2 * d);
            let order: Vec<usize> =
                [0, 1].into_iter().chain(kernel).chain((0..n).map(|d| 2 + 2 * d)).collect();
            let columns = b.transpose(windows, &order);
            let rows = types[0].shape[1] * sizes.iter().product::<usize>();
            let count = positions.iter().product();
            vec![b.reshape(columns, &[types[0].shape[0], rows, count])]
        })
    })[0]
}

/// `fold`: the transpose of [`unfold`]: columns `[N, C sizes.., positions]` become
/// `[N, C, spatial..]`, of which each element is the sum of all window elements that came from
/// it. Attributes: `spatial`, `sizes` and those of [`Conv`] but `groups`.
pub fn fold(b: &mut Builder, x: Value, spatial: &[usize], sizes: &[usize], conv: &Conv) -> Value {
    call(b, "fold", &[x], 1, |types| {
        let &[batch, rows, count] = &types[0].shape[..] else {
            let ty = &types[0];
            return Err(Error::new(format!(
                "needs columns [batch, rows, positions], but got {ty}"
            )));
        };
        let window: usize = sizes.iter().product();
        let channels = rows / window.max(1);
        let shape: Vec<usize> = [batch, channels].iter().chain(spatial).copied().collect();
        let positions = conv.positions(&types[0].with_shape(shape.clone()), sizes)?;
        if positions.iter().product::<usize>() != count || channels * window != rows {
            return Err(Error::new(format!(
                "{} are not the windows of {sizes:?} at {positions:?} positions over {spatial:?}",
                types[0]
            )));
        }
        let mut attributes = conv.with_sizes(sizes);
        attributes.push(("spatial", dims_attribute(spatial)));
        function("fold", attributes, types, |b, inputs| {
            let n = conv.spatial();
            let split: Vec<usize> =
                shape[..2].iter().chain(sizes).chain(&positions).copied().collect();
            let x = b.reshape(inputs[0], &split);
            let pairs = (0..n).flat_map(|d| [2 + n + d, 2 + d]);
            let order: Vec<usize> = [0, 1].into_iter().chain(pairs).collect();
            let windows = b.transpose(x, &order);
            let length = |d: usize| {
                usize::try_from(spatial[d] as i64 + conv.padding[d].0 + conv.padding[d].1)
                    .unwrap_or(0)
            };
            let y = (0..n).rev().fold(windows, |x, d| conv.windows(sizes, d).fold(b, x, length(d)));
            let cropped: Vec<(i64, i64)> = conv.padding.iter().map(|p| (-p.0, -p.1)).collect();
            vec![padded(b, y, &cropped)]
        })
    })[0]
}

impl Conv {
    /// How many windows of these sizes there are in each spatial dimension of `x`.
    fn positions(&self, x: &Type, sizes: &[usize]) -> Result<Vec<usize>> {
        let n = self.spatial();
        expect_float("the operand", x)?;
        if x.rank() != n + 2 || sizes.len() != n {
            return Err(Error::new(format!(
                "windows of {sizes:?} need an operand [batch, channels, spatial..] with as many \
                 spatial dimensions, but got {x}"
            )));
        }
        let zero = [sizes, &self.stride, &self.dilation].iter().any(|list| list.contains(&0));
        if zero || self.padding.len() != n || self.dilation.len() != n {
            return Err(Error::new(
                "sizes, strides and dilations must be at least 1, one for each \
                                   spatial dimension",
            ));
        }
        let count = |d: usize| {
            let length = x.shape[2 + d] as i64 + self.padding[d].0 + self.padding[d].1;
            let length = usize::try_from(length).unwrap_or(0);
            window_count(length, sizes[d], self.stride[d], self.dilation[d])
        };
        Ok((0..n).map(count).collect())
    }

    fn with_sizes(&self, sizes: &[usize]) -> AttributeList {
        let mut attributes = self.attributes();
        attributes.retain(|(name, _)| *name != "groups");
        attributes.insert(0, ("sizes", dims_attribute(sizes)));
        attributes
    }

    /// The windows along spatial dimension `d`, where those before it have become pairs.
    fn windows(&self, sizes: &[usize], d: usize) -> Windows {
        Windows {
            dim: 2 + 2 * d,
            size: sizes[d],
            stride: self.stride[d],
            dilation: self.dilation[d],
        }
    }
}

/// `x [N, C, spatial..]` with zeros around its spatial dimensions.
fn padded(b: &mut Builder, x: Value, padding: &[(i64, i64)]) -> Value {
    if padding.iter().all(|p| *p == (0, 0)) {
        return x;
    }
    let rest = || std::iter::repeat_n(0, 2);
    let op = Pad {
        low: rest().chain(padding.iter().map(|p| p.0)).collect(),
        high: rest().chain(padding.iter().map(|p| p.1)).collect(),
        interior: vec![0; padding.len() + 2],
    };
    let zero = b.full(Type::scalar(b.ty(x).dtype), 0.0);
    b.emit1(op, &[x, zero])
}
