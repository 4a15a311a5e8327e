//! Generated code against the interpreter, on random bodies.

use super::LoopKernel;
use crate::isa::{Isa, Kernel, Level};
use crate::math::Math;
use crate::pool::{Pool, Scratch};
use crate::testing::Random;
use ferrata_compiler::kernel::{Access, Instruction, Loop, Store};
use ferrata_ir::primitive::{ReduceKind, ScalarOp};
use ferrata_ir::{DType, Scalar};

/// Without those whose rounding depends on the path.
const UNARY: [ScalarOp; 12] = {
    use ScalarOp::*;
    [Neg, Abs, Sign, Floor, Ceil, Round, Trunc, Sqrt, Rsqrt, Sin, Expm1, IsFinite]
};
const BINARY: [ScalarOp; 12] = {
    use ScalarOp::*;
    [Add, Sub, Mul, Div, Max, Min, Rem, Lt, Ge, Eq, Ne, Gt]
};
const INTEGER: [ScalarOp; 14] = {
    use ScalarOp::*;
    [Add, Sub, Mul, Div, Max, Min, And, Or, Xor, Shl, Shr, Lt, Le, Eq]
};
const LOADED: [DType; 11] = [
    DType::F32,
    DType::F32,
    DType::F32,
    DType::BF16,
    DType::F16,
    DType::F64,
    DType::I32,
    DType::I64,
    DType::U32,
    DType::U8,
    DType::Bool,
];

/// Dtype of registers of a dtype.
fn held(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

struct Body<'a> {
    random: &'a mut Random,
    rows: usize,
    columns: usize,
    loads: Vec<Access>,
    code: Vec<Instruction>,
    /// Dtype of each register, and whether it is the same in all columns.
    registers: Vec<(DType, bool)>,
}

impl Body<'_> {
    fn push(&mut self, instruction: Instruction, dtype: DType, still: bool) -> usize {
        self.code.push(instruction);
        self.registers.push((dtype, still));
        self.code.len() - 1
    }

    fn load(&mut self) {
        let dtype = self.random.pick(&LOADED);
        let (rows, columns) = (self.rows as isize, self.columns as isize);
        let strides = match self.random.below(7) {
            0 => vec![1, 0],
            1 => vec![0, 1],
            2 => vec![0, 0],
            3 => vec![1, rows],
            _ => vec![columns, 1],
        };
        let still = strides[1] == 0;
        let operand = self.loads.len();
        self.loads.push(Access { operand, dtype, offset: 0, strides });
        self.push(Instruction::Load(operand), held(dtype), still);
    }

    /// Some register of a dtype.
    fn of(&mut self, dtype: DType) -> Option<usize> {
        let all = (0..self.code.len()).filter(|&r| self.registers[r].0 == dtype);
        let all: Vec<usize> = all.collect();
        (!all.is_empty()).then(|| self.random.pick(&all))
    }

    fn step(&mut self) {
        let at = self.random.below(self.code.len());
        let (dtype, mut still) = self.registers[at];
        let float = dtype.is_float();
        let mut args = vec![at];
        let truth = |op| {
            use ScalarOp::*;
            matches!(op, Lt | Le | Gt | Ge | Eq | Ne | IsFinite)
        };
        let op = match self.random.below(8) {
            0 => {
                let to = self.random.pick(&LOADED);
                let cast = Instruction::Cast { from: dtype, to, arg: at };
                self.push(cast, held(to), still);
                return;
            }
            1 => {
                let (x, c) = (self.of(dtype), self.of(DType::Bool));
                let (Some(x), Some(c)) = (x, c) else { return };
                args = vec![c, at, x];
                ScalarOp::Select
            }
            2 | 3 if float => self.random.pick(&UNARY),
            _ if dtype == DType::Bool => ScalarOp::Not,
            _ => {
                let Some(x) = self.of(dtype) else { return };
                args.push(x);
                if float { self.random.pick(&BINARY) } else { self.random.pick(&INTEGER) }
            }
        };
        still = args.iter().all(|&a| self.registers[a].1) && still;
        let out = if truth(op) { DType::Bool } else { dtype };
        self.push(Instruction::Apply { op, dtype, args }, out, still);
    }
}

fn kernel(random: &mut Random, reduces: bool) -> Loop {
    let rows = random.pick(&[1, 2, 5, 40]);
    let columns = random.pick(&[1, 7, 16, 33, 64, 200, 1030]);
    let mut b =
        Body { random, rows, columns, loads: Vec::new(), code: Vec::new(), registers: Vec::new() };
    for _ in 0..1 + b.random.below(5) {
        b.load();
    }
    let dim = b.random.below(2);
    b.push(Instruction::Index { dim, dtype: DType::I32 }, DType::I32, dim == 0);
    let value = Scalar::Float(0.75);
    b.push(Instruction::Constant { dtype: DType::F32, value }, DType::F32, true);
    let mut stores = Vec::new();
    let mut store = |b: &Body, register: usize, strides: Vec<isize>, combine| {
        let operand = b.loads.len() + 1000 + stores.len();
        let access = Access { operand, dtype: b.registers[register].0, offset: 0, strides };
        stores.push(Store { register, access, combine });
    };
    for _ in 0..2 + b.random.below(30) {
        b.step();
        if reduces && b.random.below(6) == 0 {
            let Some(arg) = b.of(DType::F32) else { continue };
            let kind = b.random.pick(&[ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min]);
            let reduce = Instruction::ReduceColumns { kind, dtype: DType::F32, arg };
            let r = b.push(reduce, DType::F32, true);
            store(&b, r, vec![1, 0], None);
        }
    }
    for _ in 0..1 + b.random.below(3) {
        let r = b.random.below(b.code.len());
        let turned = b.random.below(4) == 0;
        let strides = if turned { vec![1, rows as isize] } else { vec![columns as isize, 1] };
        store(&b, r, strides, None);
    }
    let loads = b.loads.len();
    for (i, s) in stores.iter_mut().enumerate() {
        s.access.operand = loads + i;
    }
    Loop { rows: vec![rows], columns: vec![columns], loads: b.loads, body: b.code, stores }
}

/// Bytes of every result of a kernel.
fn run(kernel: &LoopKernel, pool: &Pool, inputs: &[Vec<u8>], sizes: &[usize]) -> Vec<Scratch> {
    let mut operands: Vec<Scratch> = sizes.iter().map(|_| Scratch::default()).collect();
    for (i, (operand, &size)) in operands.iter_mut().zip(sizes).enumerate() {
        operand.reserve(size);
        if let Some(bytes) = inputs.get(i) {
            // SAFETY: the operand has as many bytes.
            unsafe { operand.as_mut_ptr::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
        }
    }
    let mut workspace = Scratch::default();
    workspace.reserve(kernel.workspace().max(1));
    let pointers: Vec<*mut u8> = operands.iter_mut().map(Scratch::as_mut_ptr).collect();
    // SAFETY: every operand has an element for each row and column.
    unsafe { kernel.run(pool, &pointers, workspace.as_mut_ptr()) };
    operands.split_off(inputs.len())
}

fn inputs(random: &mut Random, kernel: &Loop) -> Vec<Vec<u8>> {
    let elements = kernel.rows[0] * kernel.columns[0];
    let one = |access: &Access| {
        let mut bytes = Vec::new();
        for _ in 0..elements {
            let x = match random.below(40) {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => -0.0,
                _ => random.unit() * 6.0,
            };
            match access.dtype {
                DType::F32 => bytes.extend((x as f32).to_le_bytes()),
                DType::F64 => bytes.extend(x.to_le_bytes()),
                DType::F16 => bytes.extend(half::f16::from_f64(x).to_le_bytes()),
                DType::BF16 => bytes.extend(half::bf16::from_f64(x).to_le_bytes()),
                DType::Bool => bytes.push(u8::from(x > 0.0)),
                dtype => {
                    let wide = random.below(6) == 0;
                    let x = if wide { random.bits() } else { x as i64 as u64 };
                    bytes.extend(&x.to_le_bytes()[..dtype.size()]);
                }
            }
        }
        bytes
    };
    kernel.loads.iter().map(one).collect()
}

/// Compares results; sums may be in another order.
fn compare(kernel: &Loop, exact: bool, got: &mut [Scratch], want: &mut [Scratch], what: &str) {
    let whole = kernel.rows[0] * kernel.columns[0];
    for (s, store) in kernel.stores.iter().enumerate() {
        let count = if store.access.strides[1] == 0 { kernel.rows[0] } else { whole };
        let dtype = store.access.dtype;
        let bytes = |x: &mut Scratch| {
            // SAFETY: the result has as many elements.
            unsafe { std::slice::from_raw_parts(x.as_mut_ptr::<u8>(), count * dtype.size()) }
                .to_vec()
        };
        let (got, want) = (bytes(&mut got[s]), bytes(&mut want[s]));
        for (i, (g, w)) in got.chunks(dtype.size()).zip(want.chunks(dtype.size())).enumerate() {
            let float = |x: &[u8]| match dtype {
                DType::F32 => x.try_into().map(f32::from_le_bytes).map(f64::from).ok(),
                DType::F64 => x.try_into().map(f64::from_le_bytes).ok(),
                _ => None,
            };
            let near = match (float(g), float(w)) {
                (Some(g), Some(w)) => {
                    g.is_nan() && w.is_nan()
                        || !exact && (g - w).abs() <= 1e-4 * (w.abs() + kernel.columns[0] as f64)
                }
                _ => false,
            };
            assert!(g == w || near, "{what}: store {s}, element {i}: {g:?} not {w:?}\n{kernel:#?}");
        }
    }
}

fn agree(seed: u64, reduces: bool) {
    let pool = Pool::new(2);
    for isa in Isa::available().filter(|&isa| isa > Isa::Portable) {
        let random = &mut Random(seed);
        for turn in 0..300 {
            let mut kernel = kernel(random, reduces);
            let inputs = inputs(random, &kernel);
            if reduces {
                // What follows a sum in another order may differ altogether, if it is compared.
                let stored = |s: &Store| s.access.strides[1] == 0;
                kernel.stores.retain(stored);
                let first = |k: &Loop| {
                    let reduce = |i: &Instruction| matches!(i, Instruction::ReduceColumns { .. });
                    k.body.iter().position(reduce)
                };
                let first = first(&kernel);
                kernel.stores.retain(|s| Some(s.register) == first);
                kernel.stores.iter_mut().for_each(|s| s.access.operand = kernel.loads.len());
                if turn % 2 == 0 {
                    // Repeated in its row, with nothing that tells where rows end but itself.
                    let strides = vec![kernel.columns[0] as isize, 1];
                    kernel.stores.iter_mut().for_each(|s| s.access.strides.clone_from(&strides));
                }
            }
            if kernel.stores.is_empty() {
                continue;
            }
            let whole = 8 * kernel.rows[0] * kernel.columns[0];
            let sizes = vec![whole; kernel.loads.len() + kernel.stores.len()];
            let native = LoopKernel::new(isa, &kernel).unwrap();
            assert!(native.is_native() || !crate::exec::generates(isa), "{kernel:#?}");
            let interpreted = LoopKernel::interpreted(isa, &kernel).unwrap();
            let mut got = run(&native, &pool, &inputs, &sizes);
            let mut want = run(&interpreted, &pool, &inputs, &sizes);
            compare(&kernel, !reduces, &mut got, &mut want, &format!("{isa}, body {turn}"));
        }
    }
}

/// Compares the code of a function with the text it was made of, at `inputs`.
macro_rules! same {
    ($isa:expr, $inputs:expr, $($op:ident: $name:ident),*) => {$({
        struct Each<'a>(&'a [f32], &'a mut [f32]);
        impl Kernel for Each<'_> {
            type Output = ();
            #[inline(always)]
            fn run<L: Level>(self) {
                for (y, &x) in self.1.iter_mut().zip(self.0) {
                    *y = Math::$name::<L>(x);
                }
            }
        }
        let (isa, inputs): (Isa, &[f32]) = ($isa, $inputs);
        let mut want = vec![0f32; inputs.len()];
        isa.run(Each(inputs, &mut want));
        let access = |operand| {
            Access { operand, dtype: DType::F32, offset: 0, strides: vec![0, 1] }
        };
        let op = Instruction::Apply { op: ScalarOp::$op, dtype: DType::F32, args: vec![0] };
        let kernel = Loop {
            rows: vec![1],
            columns: vec![inputs.len()],
            loads: vec![access(0)],
            body: vec![Instruction::Load(0), op],
            stores: vec![Store { register: 1, access: access(1), combine: None }],
        };
        let bytes: Vec<u8> = inputs.iter().flat_map(|x| x.to_le_bytes()).collect();
        let sizes = [bytes.len(); 2];
        let code = LoopKernel::new(isa, &kernel).unwrap();
        let mut got = run(&code, &Pool::new(1), &[bytes], &sizes);
        // SAFETY: the result has as many elements.
        let got = unsafe {
            std::slice::from_raw_parts(got[0].as_mut_ptr::<f32>(), inputs.len())
        };
        for ((&x, g), w) in inputs.iter().zip(got).zip(&want) {
            let same = g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan();
            assert!(same, "{isa} {}({x:e}) = {g:e}, not {w:e}", stringify!($name));
        }
    })*};
}

fn functions_agree(inputs: &[f32]) {
    for isa in Isa::available().filter(|&isa| isa > Isa::Portable) {
        same!(isa, inputs, Exp: exp, Log: log, Tanh: tanh, Logistic: logistic, Erf: erf);
    }
}

#[test]
fn code_of_functions_is_their_text() {
    let every: Vec<f32> =
        (0..=0xffff_u32).map(|high| f32::from_bits(high << 16 | 0x5a5a)).collect();
    functions_agree(&every);
    functions_agree(&[f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::NAN]);
}

#[test]
#[ignore = "takes minutes: every f32"]
fn code_of_functions_is_their_text_everywhere() {
    for high in 0..=0xfff_u32 {
        let inputs: Vec<f32> =
            (0..=0xf_ffff_u32).map(|low| f32::from_bits(high << 20 | low)).collect();
        functions_agree(&inputs);
    }
}

#[test]
fn code_computes_what_the_interpreter_does() {
    agree(11, false);
}

#[test]
fn code_reduces_as_the_interpreter_does() {
    agree(12, true);
}

#[test]
fn large_results_go_past_the_caches() {
    let pool = Pool::new(2);
    // Whole vectors in all rows; a part at the end of each; rows that begin between vectors.
    for (rows, columns) in [(5, 2_000_000), (3000, 3200), (3000, 3208), (3001, 3201)] {
        let strides = vec![columns as isize, 1];
        let access = |operand: usize| Access {
            operand,
            dtype: DType::F32,
            offset: 0,
            strides: strides.clone(),
        };
        let body = [
            Instruction::Load(0),
            Instruction::ReduceColumns { kind: ReduceKind::Max, dtype: DType::F32, arg: 0 },
            Instruction::Apply { op: ScalarOp::Sub, dtype: DType::F32, args: vec![0, 1] },
        ];
        let store = |register| Store { register, access: access(1), combine: None };
        for (code, register) in [(1, 0), (3, 2)] {
            let kernel = Loop {
                rows: vec![rows],
                columns: vec![columns],
                loads: vec![access(0)],
                body: [
                    &body[..code],
                    &[Instruction::Apply {
                        op: ScalarOp::Neg,
                        dtype: DType::F32,
                        args: vec![register],
                    }],
                ]
                .concat(),
                stores: vec![store(code)],
            };
            let bytes: Vec<u8> = (0..rows * columns)
                .flat_map(|i| ((i * 7919 % 10_007) as f32).to_le_bytes())
                .collect();
            let sizes = [bytes.len(); 2];
            for isa in Isa::available() {
                let native = LoopKernel::new(isa, &kernel).unwrap();
                let interpreted = LoopKernel::interpreted(isa, &kernel).unwrap();
                let inputs = [bytes.clone()];
                let mut got = run(&native, &pool, &inputs, &sizes);
                let mut want = run(&interpreted, &pool, &inputs, &sizes);
                compare(&kernel, true, &mut got, &mut want, &format!("{isa}, {rows} {columns}"));
            }
        }
    }
}
