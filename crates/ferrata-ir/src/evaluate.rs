//! The reference evaluator: slow, obvious, and the meaning of every program.

use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::literal::{Elements, Literal};
use crate::program::Function;
use std::cell::RefCell;
use std::sync::Arc;

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
    watch: bool,
    shown: RefCell<Vec<String>>,
    communicator: Option<Arc<dyn Communicator>>,
}

impl Evaluator {
    /// An evaluator of the given precision.
    pub fn new(precision: Precision) -> Self {
        Evaluator { precision, watch: false, shown: RefCell::default(), communicator: None }
    }

    /// The same evaluator, for which a node that makes the first NaN, or an infinity from finite
    /// inputs, is an error that names it.
    ///
    /// ```
    /// use ferrata_ir::{Builder, DType, Evaluator, Literal, Precision, Type};
    /// let ty = Type::scalar(DType::F32);
    /// let mut b = Builder::new("f");
    /// let x = b.parameter(ty.clone());
    /// let y = b.log(x);
    /// let f = b.finish(&[y]).unwrap();
    /// let evaluator = Evaluator::new(Precision::Typed).watching();
    /// let error = evaluator.call(&f, &[&Literal::float(ty, vec![-1.0])]).unwrap_err();
    /// assert_eq!(error.to_string(), "log(f32[]): makes NaN of finite numbers");
    /// ```
    #[must_use]
    pub fn watching(mut self) -> Self {
        self.watch = true;
        self
    }

    /// The same evaluator as one of the ranks of a run.
    #[must_use]
    pub fn with_communicator(mut self, communicator: Arc<dyn Communicator>) -> Self {
        self.communicator = Some(communicator);
        self
    }

    /// How values are rounded.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// What connects this rank to the others.
    pub(crate) fn communicator(&self) -> Result<&dyn Communicator> {
        self.communicator.as_deref().ok_or_else(crate::communicator::alone)
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
            let results = node.op.rules().evaluate(self, &args, &types);
            let results =
                results.and_then(|results| self.watched(&args, results)).map_err(|e| {
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

    /// The results of a node, if they are numbers or nobody watches.
    fn watched(&self, inputs: &[&Literal], results: Vec<Literal>) -> Result<Vec<Literal>> {
        let any = |xs: &[&Literal], test: fn(f64) -> bool| {
            xs.iter()
                .any(|x| matches!(&x.elements, Elements::Float(v) if v.iter().any(|&x| test(x))))
        };
        // A constant may be infinite, as masks are.
        if !self.watch || inputs.is_empty() || any(inputs, f64::is_nan) {
            return Ok(results);
        }
        let rounded: Vec<Literal> = results.iter().map(|x| self.round(x.clone())).collect();
        let made: Vec<&Literal> = rounded.iter().collect();
        let of_finite = !any(inputs, f64::is_infinite);
        match (any(&made, f64::is_nan), any(&made, f64::is_infinite)) {
            (true, _) if of_finite => Err(Error::new("makes NaN of finite numbers")),
            (true, _) => Err(Error::new("makes NaN of infinities")),
            (false, true) if of_finite => Err(Error::new("makes infinities of finite numbers")),
            _ => Ok(results),
        }
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
