//! Tiles of global memory: loads and stores.

use super::mlir::{Affine, Text, list, memref, tensor, tensor_of};
use super::plan::Tiles;
use super::register::{Element, Form, Mask, Register, shape};
use ferrata_compiler::kernel::Access;
use ferrata_compiler::row_major;
use ferrata_ir::{DType, Error, Result};

/// The pointers that a program takes: which operand, seen as elements of which type.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub list: Vec<(usize, &'static str)>,
}

impl Arguments {
    /// The name of the pointer to an operand.
    pub fn pointer(&mut self, operand: usize, element: &'static str) -> String {
        let at = self.list.iter().position(|a| *a == (operand, element));
        let at = at.unwrap_or_else(|| {
            self.list.push((operand, element));
            self.list.len() - 1
        });
        format!("%a{at}")
    }
}

/// What elements of a dtype are in memory.
///
/// # Errors
/// For dtypes that the device does not compute with.
pub(crate) fn stored(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::I32 => "i32",
        // A float of 64 bits is taken apart by the scalar unit.
        DType::I64 | DType::F64 => "i64",
        DType::Bool => "i8",
        other => return Err(Error::new(format!("no kernel reads or writes {other}"))),
    })
}

/// Along which axes of a tile an access with these strides moves.
pub(crate) fn mask(strides: &[isize], tiles: &Tiles) -> Mask {
    [0, 1].map(|a: usize| tiles.axes[a].is_some_and(|l| strides[l] != 0))
}

/// The part of an operand that belongs to a tile.
pub(crate) struct Region<'a> {
    pub access: &'a Access,
    pub mask: Mask,
    pub size: [usize; 2],
    pub valid: &'a [Option<String>; 2],
}

/// A window on memory in the order of its strides, the last one the smallest.
struct Window {
    pointer: String,
    element: &'static str,
    offset: String,
    sizes: Vec<usize>,
    strides: Vec<isize>,
    /// How many elements count, where that is known at run time only.
    valid: Vec<Option<String>>,
    /// Whether rows and columns have changed places.
    turned: bool,
}

impl Region<'_> {
    fn window(
        &self,
        text: &mut Text,
        arguments: &mut Arguments,
        tiles: &Tiles,
        base: &[Affine],
    ) -> Result<Window> {
        let element = stored(self.access.dtype)?;
        let pointer = arguments.pointer(self.access.operand, element);
        let offset = Affine::sum(self.access.offset, base, &self.access.strides).write(text);
        let axes: Vec<usize> = (0..2).filter(|&a| self.mask[a]).collect();
        let stride = |a: usize| tiles.axes[a].map_or(0, |l| self.access.strides[l]);
        let mut strides: Vec<isize> = axes.iter().map(|&a| stride(a)).collect();
        if strides.iter().any(|&s| s < 0) {
            return Err(Error::new("the device has no kernel for elements in reverse order"));
        }
        let mut sizes: Vec<usize> = axes.iter().map(|&a| self.size[a]).collect();
        let mut valid: Vec<Option<String>> = axes.iter().map(|&a| self.valid[a].clone()).collect();
        if axes.is_empty() {
            (strides, sizes, valid) = (vec![1], vec![1], vec![None]);
        }
        let turned = strides.len() == 2 && strides[0] == 1 && strides[1] != 1;
        if turned {
            strides.reverse();
            sizes.reverse();
            valid.reverse();
        }
        Ok(Window { pointer, element, offset, sizes, strides, valid, turned })
    }

    /// The elements as a register.
    ///
    /// # Errors
    /// For dtypes that the device does not compute with.
    pub fn load(
        &self,
        text: &mut Text,
        arguments: &mut Arguments,
        tiles: &Tiles,
        base: &[Affine],
    ) -> Result<Register> {
        let dtype = self.access.dtype;
        let window = self.window(text, arguments, tiles, base)?;
        let single = self.mask == [false; 2];
        if single && matches!(dtype, DType::F32 | DType::I32 | DType::I64 | DType::F64) {
            return Ok(window.scalar(text, dtype));
        }
        let mut name = window.load(text);
        let element = window.element;
        if window.turned {
            name = transpose(text, &name, &window.sizes, element);
        }
        let shape = shape(self.mask, self.size);
        let ty = tensor(&shape, element);
        let (name, element) = match dtype {
            DType::F16 | DType::BF16 => {
                let wide = tensor(&shape, "f32");
                (text.value(format_args!("arith.extf {name} : {ty} to {wide}")), Element::F32)
            }
            DType::Bool => {
                let zero = text.value(format_args!("arith.constant dense<0> : {ty}"));
                (text.value(format_args!("arith.cmpi ne, {name}, {zero} : {ty}")), Element::I1)
            }
            DType::I64 => (name, Element::I64),
            DType::I32 => (name, Element::I32),
            _ => (name, Element::F32),
        };
        Ok(Register::tensor(name, self.mask, element))
    }

    /// Writes a tensor over the axes of the mask.
    ///
    /// # Errors
    /// For dtypes that the device does not compute with.
    pub fn store(
        &self,
        text: &mut Text,
        arguments: &mut Arguments,
        tiles: &Tiles,
        base: &[Affine],
        (name, element): (&str, Element),
    ) -> Result<()> {
        let window = self.window(text, arguments, tiles, base)?;
        let shape = shape(self.mask, self.size);
        let from = tensor(&shape, element.name());
        let to = tensor(&shape, window.element);
        let mut name = match (element, window.element) {
            (Element::F32, "f16" | "bf16") => {
                text.value(format_args!("arith.truncf {name} : {from} to {to}"))
            }
            (Element::I32, "i64") => {
                text.value(format_args!("arith.extsi {name} : {from} to {to}"))
            }
            (Element::I1, _) => text.value(format_args!("arith.extui {name} : {from} to {to}")),
            _ => name.to_owned(),
        };
        if window.turned {
            name = transpose(text, &name, &shape, window.element);
        }
        window.store(text, &name);
        Ok(())
    }
}

/// A tensor of this shape with rows and columns exchanged.
pub(crate) fn transpose(text: &mut Text, name: &str, from: &[usize], element: &str) -> String {
    let to = [from[1], from[0]];
    let (from, to) = (tensor(from, element), tensor(&to, element));
    let empty = text.value(format_args!("tensor.empty() : {to}"));
    let result = text.name();
    text.line(format_args!(
        "{result} = linalg.transpose ins({name} : {from}) outs({empty} : {to}) permutation = [1, 0]"
    ));
    result
}

impl Window {
    /// The window on global memory, and its type, cut to what counts.
    fn place(&self, text: &mut Text) -> (String, String) {
        let Window { pointer, element, offset, sizes, strides, .. } = self;
        let whole: Vec<Option<usize>> = sizes.iter().map(|&n| Some(n)).collect();
        let ty = memref(&whole, strides, true, element);
        let name = text.value(format_args!(
            "memref.reinterpret_cast {pointer} to offset: [{offset}], sizes: [{}], strides: [{}] : \
             memref<?x{element}> to {ty}",
            list(sizes),
            list(strides)
        ));
        self.cut(text, (name, ty), strides, true)
    }

    /// What counts of an array of the window's size.
    fn cut(
        &self,
        text: &mut Text,
        (name, ty): (String, String),
        strides: &[isize],
        offset: bool,
    ) -> (String, String) {
        if self.valid.iter().all(Option::is_none) {
            return (name, ty);
        }
        let part = memref(&self.known(), strides, offset, self.element);
        let (zeros, ones) = (vec![0; self.sizes.len()], vec![1; self.sizes.len()]);
        let name = text.value(format_args!(
            "memref.subview {name}[{}] [{}] [{}] : {ty} to {part}",
            list(&zeros),
            list(&self.counts()),
            list(&ones)
        ));
        (name, part)
    }

    fn known(&self) -> Vec<Option<usize>> {
        let known = |(&n, valid): (&usize, &Option<String>)| valid.is_none().then_some(n);
        self.sizes.iter().zip(&self.valid).map(known).collect()
    }

    fn counts(&self) -> Vec<String> {
        let count =
            |(n, valid): (&usize, &Option<String>)| valid.clone().unwrap_or_else(|| n.to_string());
        self.sizes.iter().zip(&self.valid).map(count).collect()
    }

    fn load(&self, text: &mut Text) -> String {
        let (from, from_ty) = self.place(text);
        let shape = self.sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let buffer_ty = format!("memref<{shape}x{}>", self.element);
        let buffer = text.value(format_args!("memref.alloc() : {buffer_ty}"));
        let dense = &row_major(&self.sizes);
        let (to, to_ty) = self.cut(text, (buffer.clone(), buffer_ty.clone()), dense, false);
        text.line(format_args!("memref.copy {from}, {to} : {from_ty} to {to_ty}"));
        text.value(format_args!("bufferization.to_tensor {buffer} restrict writable : {buffer_ty}"))
    }

    fn store(&self, text: &mut Text, name: &str) {
        let (to, to_ty) = self.place(text);
        let (mut name, mut ty) = (name.to_owned(), tensor(&self.sizes, self.element));
        if self.valid.iter().any(Option::is_some) {
            let part = tensor_of(&self.known(), self.element);
            let (zeros, ones) = (vec![0; self.sizes.len()], vec![1; self.sizes.len()]);
            name = text.value(format_args!(
                "tensor.extract_slice {name}[{}] [{}] [{}] : {ty} to {part}",
                list(&zeros),
                list(&self.counts()),
                list(&ones)
            ));
            ty = part;
        }
        text.line(format_args!(
            "bufferization.materialize_in_destination {name} in writable {to} : ({ty}, {to_ty}) -> ()"
        ));
    }

    /// A single element in the scalar unit.
    fn scalar(&self, text: &mut Text, dtype: DType) -> Register {
        let (pointer, element, offset) = (&self.pointer, self.element, &self.offset);
        let name =
            text.value(format_args!("memref.load {pointer}[{offset}] : memref<?x{element}>"));
        let (name, element) = match dtype {
            DType::F64 => (narrow(text, &name), Element::F32),
            DType::I64 => (name, Element::I64),
            DType::I32 => (name, Element::I32),
            _ => (name, Element::F32),
        };
        Register { form: Form::Scalar(name), element }
    }
}

/// The f32 nearest to the f64 of these bits, by integer arithmetic: the cores have no f64. Numbers
/// too small for a normal f32 become 0.
fn narrow(text: &mut Text, bits: &str) -> String {
    let constant = |text: &mut Text, n: i64| text.value(format_args!("arith.constant {n} : i64"));
    let apply = |text: &mut Text, operation: &str, a: &str, b: i64| {
        let b = constant(text, b);
        text.value(format_args!("arith.{operation} {a}, {b} : i64"))
    };
    let sign = apply(text, "shrui", bits, 63);
    let sign = apply(text, "shli", &sign, 31);
    let exponent = apply(text, "shrui", bits, 52);
    let exponent = apply(text, "andi", &exponent, 0x7FF);
    let exponent = apply(text, "subi", &exponent, 1023 - 127);
    let fraction = apply(text, "andi", bits, (1 << 52) - 1);
    // Half of what is cut off, and the last bit that stays, round halves to even.
    let last = apply(text, "shrui", &fraction, 29);
    let last = apply(text, "andi", &last, 1);
    let rounded = apply(text, "addi", &fraction, (1 << 28) - 1);
    let rounded = text.value(format_args!("arith.addi {rounded}, {last} : i64"));
    let rounded = apply(text, "shrui", &rounded, 29);
    let shifted = apply(text, "shli", &exponent, 23);
    let size = text.value(format_args!("arith.addi {shifted}, {rounded} : i64"));
    let size = apply(text, "minsi", &size, 0x7F80_0000);
    let one = constant(text, 1);
    let small = text.value(format_args!("arith.cmpi slt, {exponent}, {one} : i64"));
    let zero = constant(text, 0);
    let size = text.value(format_args!("arith.select {small}, {zero}, {size} : i64"));
    let all = text.value(format_args!("arith.addi {sign}, {size} : i64"));
    let all = text.value(format_args!("arith.trunci {all} : i64 to i32"));
    text.value(format_args!("arith.bitcast {all} : i32 to f32"))
}
