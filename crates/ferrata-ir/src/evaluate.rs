//! The reference evaluator: slow, obvious, and the meaning of every program.

use crate::error::{Error, Result};
use crate::literal::Literal;
use crate::program::Function;
use std::cell::RefCell;

/// How results are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Floats stay f64 whatever their dtype.
    Exact,
    /// Every value is rounded to its dtype.
    Typed,
}

/// Runs functions on host literals, node by node.
///
/// ```
/// use ferrata_ir::{Builder, DType, Evaluator, Literal, Precision, Type};
/// let ty = Type::new(DType::F32, [2]);
/// let mut b = Builder::new("double");
/// let x = b.parameter(ty.clone());
/// let y = b.add(x, x);
/// let f = b.finish(&[y]).unwrap();
/// let out = Evaluator::new(Precision::Typed)
///     .call(&f, &[&Literal::float(ty, vec![1.0, 2.5])])
///     .unwrap();
/// assert_eq!(out[0].to_f64(), [2.0, 5.0]);
/// ```
#[derive(Debug)]
pub struct Evaluator {
    precision: Precision,
    shown: RefCell<Vec<String>>,
}

impl Evaluator {
    /// An evaluator of the given precision.
    pub fn new(precision: Precision) -> Self {
        Evaluator { precision, shown: RefCell::default() }
    }

    /// Results of `function` on `inputs`.
    ///
    /// # Errors
    /// When the inputs do not fit the parameters, or a node has no meaning (named with its origin).
    pub fn call(&self, function: &Function, inputs: &[&Literal]) -> Result<Vec<Literal>> {
        let types: Vec<_> = inputs.iter().map(|l| &l.ty).collect();
        if types != function.parameter_types() {
            return Err(Error::new(format!("arguments do not fit `{}`", function.name)));
        }
        let mut values: Vec<Option<Literal>> = vec![None; function.value_count()];
        for (&p, &x) in function.parameters().iter().zip(inputs) {
            values[p.index()] = Some(self.round(x.clone()));
        }
        let undefined = || Error::new("a value is used before it is defined");
        for node in function.nodes() {
            let args = node
                .inputs
                .iter()
                .map(|v| values[v.index()].as_ref().ok_or_else(undefined))
                .collect::<Result<Vec<_>>>()?;
            let types: Vec<_> = node.outputs.iter().map(|&v| function.ty(v)).collect();
            let results = node.op.rules().evaluate(self, &args, &types).map_err(|e| {
                let types: Vec<_> = node.inputs.iter().map(|&v| function.ty(v)).collect();
                e.at(node.op.name(), &types, &node.origin)
            })?;
            for (&v, r) in node.outputs.iter().zip(results) {
                values[v.index()] = Some(self.round(r));
            }
        }
        let results = function.results().iter();
        results.map(|v| values[v.index()].clone().ok_or_else(undefined)).collect()
    }

    fn round(&self, x: Literal) -> Literal {
        match self.precision {
            // Integers wrap in either mode; only floats keep their f64 value.
            Precision::Exact if x.ty.dtype.is_float() => x,
            _ => x.rounded(),
        }
    }

    /// Records what a `debug_print` shows.
    pub(crate) fn show(&self, label: &str, x: &Literal) {
        self.shown.borrow_mut().push(format!("{label} {} {:?}", x.ty, x.to_f64()));
    }

    /// What `debug_print` has shown so far, one line each.
    pub fn shown(&self) -> Vec<String> {
        self.shown.borrow().clone()
    }
}
