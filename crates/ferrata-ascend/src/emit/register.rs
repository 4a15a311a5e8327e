//! Registers of a kernel body as tensors over a tile.

use super::mlir::{Text, list, tensor};
use ferrata_ir::{DType, Scalar};

/// What tensors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    I32,
    I64,
    /// A truth value.
    I1,
}

impl Element {
    /// What registers of this dtype are computed in. Half precision is computed in f32, and so are
    /// f64 numbers, which only occur one at a time.
    pub fn of(dtype: DType) -> Option<Element> {
        match dtype {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => Some(Element::F32),
            DType::I64 => Some(Element::I64),
            DType::I32 => Some(Element::I32),
            DType::Bool => Some(Element::I1),
            _ => None,
        }
    }

    /// The type in MLIR.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::I32 => "i32",
            Element::I64 => "i64",
            Element::I1 => "i1",
        }
    }

    /// A number as an attribute of this type.
    pub fn attribute(self, x: Scalar) -> String {
        match self {
            Element::F32 => format!("0x{:08X}", (x.as_f64() as f32).to_bits()),
            Element::I1 => (x.as_i64() != 0).to_string(),
            Element::I32 | Element::I64 => x.as_i64().to_string(),
        }
    }
}

/// Along which of the two axes of a tile (rows, columns) something varies.
pub(crate) type Mask = [bool; 2];

/// Both of them.
pub(crate) fn either(a: Mask, b: Mask) -> Mask {
    [a[0] || b[0], a[1] || b[1]]
}

/// The value of a register.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    /// A number.
    Constant(Scalar),
    /// A scalar of the scalar unit.
    Scalar(String),
    /// A tensor over the axes of the mask; one element if there are none.
    Tensor(String, Mask),
}

/// A register: its value and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Register {
    pub form: Form,
    pub element: Element,
}

impl Register {
    pub fn tensor(name: String, mask: Mask, element: Element) -> Register {
        Register { form: Form::Tensor(name, mask), element }
    }

    /// Along which axes it varies.
    pub fn mask(&self) -> Mask {
        match self.form {
            Form::Tensor(_, mask) => mask,
            _ => [false; 2],
        }
    }
}

/// The sizes of a tile along the axes of a mask.
pub(crate) fn shape(mask: Mask, size: [usize; 2]) -> Vec<usize> {
    let shape: Vec<usize> = (0..2).filter(|&a| mask[a]).map(|a| size[a]).collect();
    if shape.is_empty() { vec![1] } else { shape }
}

/// The register as a tensor over the axes of `mask`, repeated where it does not vary.
pub(crate) fn spread(text: &mut Text, x: &Register, mask: Mask, size: [usize; 2]) -> String {
    let element = x.element.name();
    let shape = shape(mask, size);
    let ty = tensor(&shape, element);
    match &x.form {
        Form::Constant(c) => {
            let c = x.element.attribute(*c);
            text.value(format_args!("arith.constant dense<{c}> : {ty}"))
        }
        Form::Scalar(name) => fill(text, name, element, &ty),
        Form::Tensor(name, have) if *have == mask => name.clone(),
        Form::Tensor(name, [false, false]) => {
            let zero = text.index(0);
            let scalar =
                text.value(format_args!("tensor.extract {name}[{zero}] : tensor<1x{element}>"));
            fill(text, &scalar, element, &ty)
        }
        Form::Tensor(name, have) => {
            let from = tensor(&self::shape(*have, size), element);
            let new: Vec<usize> = (0..2).filter(|&a| mask[a] && !have[a]).collect();
            let empty = text.value(format_args!("tensor.empty() : {ty}"));
            text.value(format_args!(
                "linalg.broadcast ins({name} : {from}) outs({empty} : {ty}) dimensions = [{}]",
                list(&new)
            ))
        }
    }
}

/// A tensor of this type with the same scalar everywhere.
pub(crate) fn fill(text: &mut Text, scalar: &str, element: &str, ty: &str) -> String {
    let empty = text.value(format_args!("tensor.empty() : {ty}"));
    text.value(format_args!("linalg.fill ins({scalar} : {element}) outs({empty} : {ty}) -> {ty}"))
}
