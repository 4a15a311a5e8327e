//! Products of several loops, convolutions above all, against the interpreter of the kernel
//! language.

use super::*;
use crate::testing::Random;
use ferrata_compiler::kernel::{Epilogue as Behind, Kernel, Store};
use ferrata_compiler::plan::{Place, Plan, Step};
use ferrata_compiler::testing::interpret;
use ferrata_ir::primitive::ScalarOp;
use ferrata_ir::{Literal, Scalar, Type};
use std::sync::Arc;

/// An access of some loops, in an operand that holds it exactly but for `start` elements before.
struct Span {
    access: Access,
    ty: Type,
}

impl Span {
    fn new(operand: usize, dtype: DType, loops: &[(usize, isize)], start: usize) -> Span {
        let (sizes, strides): (Vec<usize>, Vec<isize>) = loops.iter().copied().unzip();
        let (low, high) = Steps::new(&sizes, &strides).bounds();
        let offset = start + low.unsigned_abs();
        let ty = Type::new(dtype, [offset + high as usize + 1]);
        Span { access: Access { operand, dtype, offset, strides }, ty }
    }
}

/// Loops of each class: trip count, and strides of the two accesses that have the class.
#[derive(Clone, Default)]
struct Loops {
    /// Left, right, out.
    batch: Vec<(usize, [isize; 3])>,
    /// Left, out.
    m: Vec<(usize, [isize; 2])>,
    /// Right, out.
    n: Vec<(usize, [isize; 2])>,
    /// Left, right.
    k: Vec<(usize, [isize; 2])>,
}

impl Loops {
    fn counts<const N: usize>(loops: &[(usize, [isize; N])]) -> Vec<usize> {
        loops.iter().map(|l| l.0).collect()
    }

    /// The product with these loops, and the types of its operands: left, right, what is added
    /// behind it (in the order of the result), and the result.
    fn kernel(&self, random: &mut Random, [dtype, out]: [DType; 2]) -> (Contract, [Type; 4]) {
        fn of<const N: usize>(loops: &[(usize, [isize; N])], at: usize) -> Vec<(usize, isize)> {
            loops.iter().map(|l| (l.0, l.1[at])).collect()
        }
        let loops = |a: Vec<_>, b: Vec<_>, c: Vec<_>| [a, b, c].concat();
        let start = random.below(3);
        let left = loops(of(&self.batch, 0), of(&self.m, 0), of(&self.k, 0));
        let right = loops(of(&self.batch, 1), of(&self.k, 1), of(&self.n, 0));
        let result = loops(of(&self.batch, 2), of(&self.m, 1), of(&self.n, 1));
        let left = Span::new(0, dtype, &left, start);
        let right = Span::new(1, dtype, &right, start);
        let added = Span::new(2, DType::F32, &result, start);
        let result = Span::new(3, out, &result, start);
        let sum = |args| Instruction::Apply { op: ScalarOp::Add, dtype: DType::F32, args };
        let mut body = vec![Instruction::Product, Instruction::Load(0), sum(vec![0, 1])];
        if dtype == DType::F64 {
            let cast = Instruction::Cast { from: DType::F64, to: DType::F32, arg: 0 };
            body = vec![Instruction::Product, cast, Instruction::Load(0), sum(vec![1, 2])];
        }
        let behind = dtype.is_float() && out == DType::F32 && random.below(2) == 0;
        let epilogue =
            behind.then(|| Behind { loads: vec![added.access], body, stores: Vec::<Store>::new() });
        let kernel = Contract {
            batch: Self::counts(&self.batch),
            m: Self::counts(&self.m),
            n: Self::counts(&self.n),
            k: Self::counts(&self.k),
            left: left.access,
            right: right.access,
            out: result.access,
            epilogue,
        };
        (kernel, [left.ty, right.ty, added.ty, result.ty])
    }
}

fn number(random: &mut Random, dtype: DType) -> Scalar {
    if dtype.is_float() {
        Scalar::Float(random.unit())
    } else {
        Scalar::Int(random.below(9) as i64)
    }
}

/// Runs a product on every path and compares with the interpreter, memory between the elements of
/// the result too, and one thread with several.
fn check(pools: &[Pool; 2], random: &mut Random, loops: &Loops, dtypes: [DType; 2], what: &str) {
    let (kernel, types) = loops.kernel(random, dtypes);
    let inputs: Vec<Literal> = types[..3]
        .iter()
        .map(|ty| Literal::build(ty.clone(), |_| number(random, ty.dtype)).rounded())
        .collect();
    let input = |index| Place::Input { index, offset: 0 };
    let plan = Plan {
        inputs: types[..3].to_vec(),
        results: vec![types[3].clone()],
        takes: vec![None],
        kernels: vec![Arc::new(Kernel::Contract(kernel.clone()))],
        steps: vec![Step::Run {
            kernel: 0,
            operands: vec![input(0), input(1), input(2), Place::Result { index: 0, offset: 0 }],
            origin: Default::default(),
        }],
        arena: 0,
        constants: Vec::new(),
    };
    let want = interpret(&plan, &inputs.iter().collect::<Vec<_>>()).unwrap().remove(0);
    let length: usize = kernel.k.iter().product();
    for isa in Isa::available() {
        let ready = ContractKernel::new(isa, &kernel).unwrap();
        let [one, several] = pools.each_ref().map(|pool| {
            let mut bytes: Vec<Vec<u8>> = inputs.iter().map(Literal::to_bytes).collect();
            // What the interpreter fills unwritten memory with.
            bytes.push(vec![0xA5; types[3].bytes()]);
            for (operand, first, end, _) in ready.reaches() {
                assert!(first >= 0 && end as usize <= bytes[operand].len(), "{what}: {operand}");
            }
            let operands: Vec<*mut u8> = bytes.iter_mut().map(|b| b.as_mut_ptr()).collect();
            // SAFETY: all that is reached lies within the buffers; heap memory is aligned.
            unsafe { ready.run(pool, &operands) }.unwrap();
            bytes.remove(3)
        });
        assert!(one == several, "{what}, {isa}: the number of threads changes bits");
        let got = Literal::from_bytes(types[3].clone(), &one).unwrap();
        for i in 0..types[3].elements() {
            let (g, w) = (got.get(i).as_f64(), want.get(i).as_f64());
            let rounding = 2.0 * dtypes[1].epsilon() * w.abs();
            let sums = (length + 2) as f64 * 2.0 * dtypes[0].accumulator().epsilon();
            let allowed = if dtypes[1].is_float() { rounding + sums * length as f64 } else { 0.0 };
            let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= allowed;
            assert!(same, "{what}, {isa}: element {i} is {g}, not {w} ± {allowed:e}");
        }
    }
}

fn pools() -> [Pool; 2] {
    [1, 3].map(Pool::new)
}

/// A two-dimensional convolution over channels-last images.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    images: usize,
    /// Rows and columns of the result.
    size: [usize; 2],
    taps: [usize; 2],
    stride: usize,
    dilation: usize,
    channels: usize,
    outputs: usize,
    groups: usize,
}

impl Convolution {
    fn random(random: &mut Random) -> Convolution {
        Convolution {
            images: random.pick(&[1, 2, 3]),
            size: [random.pick(&[1, 2, 5, 8]), random.pick(&[1, 3, 4, 7, 16])],
            taps: [random.pick(&[1, 2, 3]), random.pick(&[1, 3])],
            stride: random.pick(&[1, 1, 2]),
            dilation: random.pick(&[1, 1, 2]),
            channels: random.pick(&[1, 3, 8, 17, 32]),
            outputs: random.pick(&[1, 5, 16, 40]),
            groups: random.pick(&[1, 1, 2]),
        }
    }

    /// Rows and columns of the padded input.
    fn input(&self) -> [usize; 2] {
        let reach =
            |d: usize| (self.size[d] - 1) * self.stride + (self.taps[d] - 1) * self.dilation;
        [reach(0) + 1, reach(1) + 1]
    }

    /// The result, with `gap` columns between its rows: weights lie as `[output][tap][channel]`,
    /// turned around if `flipped`, or with outputs innermost.
    fn forward(&self, gap: usize, flipped: bool, outputs_inside: bool) -> Loops {
        let [h, w] = self.input().map(|n| n as isize);
        let [rows, columns] = self.size;
        let (all, c, o) = (self.groups * self.channels, self.channels, self.outputs);
        let (s, d) = (self.stride as isize, self.dilation as isize);
        let line = (columns + gap) as isize;
        let taps = (self.taps[0] * self.taps[1]) as isize;
        let (channel, output) =
            if outputs_inside { (o as isize, 1) } else { (1, taps * c as isize) };
        let tap = if outputs_inside { channel * c as isize } else { c as isize };
        let turn = if flipped { -1 } else { 1 };
        let (all, wide) = (all as isize, (self.groups * o) as isize);
        Loops {
            batch: vec![(self.groups, [c as isize, taps * (c * o) as isize, o as isize])],
            m: vec![
                (self.images, [h * w * all, rows as isize * line * wide]),
                (rows, [s * w * all, line * wide]),
                (columns, [s * all, wide]),
            ],
            n: vec![(o, [output, 1])],
            k: vec![
                (self.taps[0], [d * w * all, turn * self.taps[1] as isize * tap]),
                (self.taps[1], [d * all, turn * tap]),
                (c, [1, channel]),
            ],
        }
    }

    /// The gradient of the weights, as `[output][tap][channel]`.
    fn weight_gradient(&self) -> Loops {
        let [h, w] = self.input().map(|n| n as isize);
        let [rows, columns] = self.size.map(|n| n as isize);
        let (c, o) = (self.channels as isize, self.outputs as isize);
        let (s, d) = (self.stride as isize, self.dilation as isize);
        let taps = self.taps.map(|n| n as isize);
        Loops {
            batch: Vec::new(),
            m: vec![(self.outputs, [1, taps[0] * taps[1] * c])],
            n: vec![
                (self.taps[0], [d * w * c, taps[1] * c]),
                (self.taps[1], [d * c, c]),
                (self.channels, [1, 1]),
            ],
            k: vec![
                (self.images, [rows * columns * o, h * w * c]),
                (self.size[0], [columns * o, s * w * c]),
                (self.size[1], [o, s * c]),
            ],
        }
    }
}

#[test]
fn convolutions_are_products_of_windows() {
    let pools = pools();
    let mut random = Random(5);
    for round in 0..60 {
        let convolution = Convolution::random(&mut random);
        let dtypes = match random.below(8) {
            0 => [DType::F64, DType::F64],
            1 => [DType::BF16, DType::BF16],
            2 => [DType::BF16, DType::F32],
            3 => [DType::F16, DType::F32],
            4 => [DType::I8, DType::I32],
            _ => [DType::F32, DType::F32],
        };
        let (gap, flipped) = (random.pick(&[0, 0, 1]), random.below(2) == 0);
        let what = format!("{round}: {convolution:?} {dtypes:?} gap {gap} flipped {flipped}");
        let loops = convolution.forward(gap, flipped, random.below(2) == 0);
        check(&pools, &mut random, &loops, dtypes, &what);
        let loops = convolution.weight_gradient();
        check(&pools, &mut random, &loops, dtypes, &format!("weights of {what}"));
    }
}

#[test]
fn loops_of_any_number_size_and_stride() {
    let pools = pools();
    let mut random = Random(11);
    for round in 0..60 {
        let mut size = || random.pick(&[0, 1, 1, 2, 3, 5, 9, 14]);
        let sizes: Vec<usize> = (0..6).map(|_| size()).collect();
        let any = |random: &mut Random| random.below(9) as isize - 4;
        let (n, m) = (sizes[0], sizes[1] * sizes[2]);
        let mut pair = |count: usize| (count, [any(&mut random), any(&mut random)]);
        let (mut k, [mut rows, mut inner, mut columns]) =
            (vec![pair(sizes[3]), pair(sizes[4])], [pair(sizes[1]), pair(sizes[2]), pair(n)]);
        k.truncate(sizes[5] % 3);
        // The elements of the result lie apart, in one order or the other.
        let turned = round % 2 == 0;
        columns.1[1] = if turned { m.max(1) as isize } else { 1 };
        inner.1[1] = if turned { 1 } else { n.max(1) as isize };
        rows.1[1] = inner.1[1] * sizes[2].max(1) as isize + if turned { 0 } else { 1 };
        let loops = Loops { batch: Vec::new(), m: vec![rows, inner], n: vec![columns], k };
        let dtype = random.pick(&[DType::F32, DType::F64, DType::BF16, DType::I32, DType::U8]);
        let out = if dtype.is_float() { dtype } else { dtype.accumulator() };
        check(&pools, &mut random, &loops, [dtype, out], &format!("{round}: {sizes:?} {dtype}"));
    }
}
