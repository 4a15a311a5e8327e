//! Differentiation. `jvp` carries tangents beside values; `linearize` splits what it builds into a
//! forward function and a linear one (partial evaluation); transposing the linear one gives the
//! reverse mode (Radul et al. 2022, "You Only Linearize Once").

use super::transpose::transposed;
use super::{Key, prune};
use crate::error::{Error, Result};
use crate::primitive::{Barrier, Call, CustomLinear, Operand, Primitive, Tangents, zero};
use crate::program::{Builder, Function, Node, Value};
use crate::types::Type;
use std::sync::Arc;

/// A function and its tangents: `(parameters, active tangents) -> (results, active tangents)`.
#[derive(Debug)]
pub(crate) struct Dual {
    pub function: Arc<Function>,
    /// Which results have a tangent.
    pub active: Vec<bool>,
}

/// Where the linear function gets a residual from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residual {
    /// A parameter of the original function.
    Parameter(usize),
    /// An extra result of the forward function, counted from 0.
    Extra(usize),
}

/// A function split into values and tangents.
#[derive(Debug)]
pub(crate) struct Linearized {
    /// `parameters -> (results, extra residuals)`.
    pub forward: Arc<Function>,
    /// `(residuals, active tangents) -> tangents of the active results`.
    pub linear: Arc<Function>,
    /// What to pass for the residuals.
    pub residuals: Vec<Residual>,
    /// Which results have a tangent.
    pub active: Vec<bool>,
}

impl Linearized {
    /// The residuals, given the original arguments and the results of the forward function.
    pub fn residual_values(&self, arguments: &[Value], forward: &[Value]) -> Vec<Value> {
        let results = self.active.len();
        let pick = |r: &Residual| match *r {
            Residual::Parameter(i) => arguments[i],
            Residual::Extra(i) => forward[results + i],
        };
        self.residuals.iter().map(pick).collect()
    }
}

/// Forward mode: `(parameters, tangents of the parameters in wrt) -> (results, their tangents)`.
/// Results that do not depend on `wrt`, or are no floats, have zero tangents of their own type.
///
/// # Errors
/// Names the primitive without a derivative, its scope and line.
pub fn jvp(function: &Arc<Function>, wrt: &[bool]) -> Result<Arc<Function>> {
    let required = vec![true; function.results().len()];
    Ok(dual(function, &check_wrt(function, wrt)?, &required)?.function.clone())
}

/// Reverse mode: `(parameters, cotangents of the float results) -> (results, cotangents of the
/// parameters in wrt)`.
///
/// # Errors
/// Names the primitive without a derivative, its scope and line.
pub fn vjp(function: &Arc<Function>, wrt: &[bool]) -> Result<Function> {
    let mut b = Builder::new(format!("{}.vjp", function.name));
    let args: Vec<Value> =
        function.parameter_types().into_iter().map(|t| b.parameter(t.clone())).collect();
    let cotangents: Vec<Option<Value>> = function
        .result_types()
        .into_iter()
        .map(|t| t.dtype.is_float().then(|| b.parameter(t.clone())))
        .collect();
    let results = pullback(function, wrt, b, &args, |_, _| cotangents)?;
    Ok(results)
}

/// `parameters -> (results, gradients of the first result in the parameters in wrt)`; the first
/// result must be a float scalar.
///
/// # Errors
/// When it is not, or a primitive has no derivative.
pub fn value_and_grad(function: &Arc<Function>, wrt: &[bool]) -> Result<Function> {
    let first = function.result_types().first().map(|&t| t.clone());
    match first {
        Some(t) if t.rank() == 0 && t.dtype.is_float() => {}
        Some(t) => {
            return Err(Error::new(format!("the gradient of a result of type {t} is not defined"))
                .help("reduce the loss to a float scalar, for example with mean()"));
        }
        None => return Err(Error::new("the gradient of a function without results")),
    }
    let mut b = Builder::new(format!("{}.grad", function.name));
    let args: Vec<Value> =
        function.parameter_types().into_iter().map(|t| b.parameter(t.clone())).collect();
    pullback(function, wrt, b, &args, |b, results| {
        let mut cotangents = vec![None; results.len()];
        cotangents[0] = Some(b.full_like(results[0], 1.0));
        cotangents
    })
}

fn check_wrt(function: &Function, wrt: &[bool]) -> Result<Vec<bool>> {
    let types = function.parameter_types();
    if wrt.len() != types.len() {
        let (n, m) = (types.len(), wrt.len());
        return Err(Error::new(format!("{n} parameters, but {m} marks")));
    }
    if let Some((i, ty)) = types.iter().enumerate().find(|(i, ty)| wrt[*i] && !ty.dtype.is_float())
    {
        return Err(Error::new(format!("parameter {i} is {ty} and has no derivative"))
            .help("differentiate with respect to float values only"));
    }
    Ok(wrt.to_vec())
}

/// Forward pass, then the transposed linear pass, in one function.
fn pullback(
    function: &Arc<Function>,
    wrt: &[bool],
    mut b: Builder,
    args: &[Value],
    cotangents: impl FnOnce(&mut Builder, &[Value]) -> Vec<Option<Value>>,
) -> Result<Function> {
    let wrt = check_wrt(function, wrt)?;
    let lin = linearize(function, &wrt, &vec![false; function.results().len()])?;
    let forward = b.inline(&lin.forward, args);
    let n = function.results().len();
    let cotangents = cotangents(&mut b, &forward[..n]);
    let dy: Vec<Option<Value>> =
        cotangents.iter().zip(&lin.active).filter(|(_, a)| **a).map(|(d, _)| *d).collect();
    let residuals = lin.residual_values(args, &forward);
    let mut linear = vec![false; residuals.len()];
    linear.resize(lin.linear.parameters().len(), true);
    let marks: Vec<bool> = dy.iter().map(Option::is_some).collect();
    let back = transposed(&lin.linear, &linear, &marks)?;
    let mut inputs = residuals;
    inputs.extend(dy.into_iter().flatten());
    let mut grads = b.inline(&back.function, &inputs).into_iter();
    let mut results = forward[..n].to_vec();
    let mut present = back.present.iter();
    for (&p, _) in function.parameters().iter().zip(&wrt).filter(|(_, w)| **w) {
        let found = present.next().copied().unwrap_or(false).then(|| grads.next()).flatten();
        results.push(found.unwrap_or_else(|| b.full(function.ty(p).clone(), 0.0)));
    }
    let mut out = b.finish(&results)?;
    prune(&mut out);
    Ok(out)
}

/// The function with tangents carried beside values, through the bodies of composites.
pub(crate) fn dual(
    function: &Arc<Function>,
    active: &[bool],
    required: &[bool],
) -> Result<Arc<Dual>> {
    let key = Key::Jvp { active: active.to_vec(), required: required.to_vec() };
    function.memo.get(key, || {
        let b = Builder::new(format!("{}.jvp", function.name));
        let joint = join(function, active, required, b)?;
        let mut results = joint.results;
        results.extend(joint.tangents.iter().flatten());
        let active = joint.tangents.iter().map(Option::is_some).collect();
        let mut function = joint.b.finish(&results)?;
        prune(&mut function);
        Ok(Dual { function: Arc::new(function), active })
    })
}

/// Values and tangents under construction in one builder.
struct Joint {
    b: Builder,
    results: Vec<Value>,
    tangents: Tangents,
}

/// Carries tangents through every node of `function`.
fn join(function: &Function, active: &[bool], required: &[bool], mut b: Builder) -> Result<Joint> {
    let mut values: Vec<Option<Value>> = vec![None; function.value_count()];
    let mut tangents: Vec<Option<Value>> = vec![None; function.value_count()];
    for &p in function.parameters() {
        values[p.index()] = Some(b.parameter(function.ty(p).clone()));
    }
    for (&p, _) in function.parameters().iter().zip(active).filter(|(_, a)| **a) {
        tangents[p.index()] = Some(b.parameter(function.ty(p).clone()));
    }
    let undefined = || Error::new("a value is used before it is defined");
    for node in function.nodes() {
        b.set_origin(node.origin.clone());
        let x = node
            .inputs
            .iter()
            .map(|v| values[v.index()].ok_or_else(undefined))
            .collect::<Result<Vec<_>>>()?;
        let dx: Vec<Option<Value>> = node.inputs.iter().map(|v| tangents[v.index()]).collect();
        let moves = dx.iter().any(Option::is_some);
        // A primitive that holds functions emits itself in the form that its derivative needs.
        let regions = moves && !node.op.functions().is_empty();
        let mut y = if regions { Vec::new() } else { b.emit(node.op.clone(), &x) };
        if moves {
            let dy = node.op.rules().jvp(&mut b, &x, &mut y, &dx).map_err(|e| {
                let types: Vec<&Type> = node.inputs.iter().map(|&v| function.ty(v)).collect();
                e.at(node.op.name(), &types, &node.origin)
            })?;
            for (&o, d) in node.outputs.iter().zip(dy) {
                tangents[o.index()] = d;
            }
        }
        for (&o, v) in node.outputs.iter().zip(y) {
            values[o.index()] = Some(v);
        }
    }
    let mut results = Vec::new();
    let mut result_tangents = Vec::new();
    for (&r, &needed) in function.results().iter().zip(required) {
        let value = values[r.index()].ok_or_else(undefined)?;
        let mut tangent = tangents[r.index()];
        if needed && tangent.is_none() {
            tangent = Some(b.zeros_like(value));
        }
        results.push(value);
        result_tangents.push(tangent);
    }
    Ok(Joint { b, results, tangents: result_tangents })
}

/// Splits a function into a forward and a linear one. Results marked `required` have a tangent
/// even where it is zero.
pub(crate) fn linearize(
    function: &Arc<Function>,
    active: &[bool],
    required: &[bool],
) -> Result<Arc<Linearized>> {
    let key = Key::Linearize { active: active.to_vec(), required: required.to_vec() };
    function.memo.get(key, || {
        let mut b = Builder::new(function.name.clone());
        b.set_reverse(true);
        let joint = join(function, active, required, b)?;
        let active_results: Vec<bool> = joint.tangents.iter().map(Option::is_some).collect();
        let mut all = joint.results.clone();
        all.extend(joint.tangents.iter().flatten());
        let mut whole = joint.b.finish(&all)?;
        prune(&mut whole);
        split(function, &whole, active_results)
    })
}

/// Partial evaluation of a joint function: nodes that do not depend on tangents go forward.
fn split(function: &Function, joint: &Function, active: Vec<bool>) -> Result<Linearized> {
    let (inputs, outputs) = (function.parameters().len(), function.results().len());
    let mut is_linear = vec![false; joint.value_count()];
    joint.parameters()[inputs..].iter().for_each(|v| is_linear[v.index()] = true);
    let mut producer: Vec<Option<&Node>> = vec![None; joint.value_count()];
    for node in joint.nodes() {
        let linear = node.inputs.iter().any(|v| is_linear[v.index()]);
        for v in &node.outputs {
            is_linear[v.index()] = linear;
            producer[v.index()] = Some(node);
        }
    }
    let mut forward = Copier::new(format!("{}.forward", function.name), joint);
    let mut linear = Copier::new(format!("{}.linear", function.name), joint);
    for &p in &joint.parameters()[..inputs] {
        forward.parameter(p);
    }
    // Collect the residuals: known values that linear nodes or results use.
    let mut residuals = Vec::new();
    let mut sources = Vec::new();
    let mut extras = Vec::new();
    let linear_nodes =
        || joint.nodes().iter().filter(|n| n.inputs.iter().any(|v| is_linear[v.index()]));
    let mut wanted: Vec<Value> = linear_nodes()
        .flat_map(|n| n.inputs.iter().copied())
        .chain(joint.results()[outputs..].iter().copied())
        .filter(|v| !is_linear[v.index()])
        .collect();
    let mut seen = vec![false; joint.value_count()];
    let mut copied: Vec<&Node> = Vec::new();
    while let Some(v) = wanted.pop() {
        if std::mem::replace(&mut seen[v.index()], true) {
            continue;
        }
        match producer[v.index()] {
            // Cheaper to make again than to keep.
            Some(node) if is_free(&node.op) => {
                copied.push(node);
                wanted.extend(&node.inputs);
            }
            _ => residuals.push(v),
        }
    }
    residuals.sort_unstable();
    let known = || joint.nodes().iter().filter(|n| !n.inputs.iter().any(|v| is_linear[v.index()]));
    let mut users: Vec<Vec<&Node>> = vec![Vec::new(); joint.value_count()];
    known().for_each(|n| n.inputs.iter().for_each(|v| users[v.index()].push(n)));
    for &v in &residuals {
        let made_whole = producer[v.index()].is_some_and(|n| is_composite(&n.op));
        let views = if made_whole { views_of(v, &users, joint.results()) } else { Vec::new() };
        let kept = views.last().map_or(v, |n| n.outputs[0]);
        linear.parameter(kept);
        views.iter().rev().for_each(|n| linear.undo(n));
        sources.push(match joint.parameters()[..inputs].iter().position(|&p| p == kept) {
            Some(i) => Residual::Parameter(i),
            None => {
                extras.push(kept);
                Residual::Extra(extras.len() - 1)
            }
        });
    }
    joint.parameters()[inputs..].iter().for_each(|&p| linear.parameter(p));
    copied.sort_unstable_by_key(|n| n.outputs.first().copied());
    copied.dedup_by_key(|n| n.outputs.first().copied());
    copied.retain(|n| linear.map[n.outputs[0].index()].is_none());
    copied.iter().for_each(|n| linear.node(n));
    for node in joint.nodes() {
        let is_linear = node.inputs.iter().any(|v| is_linear[v.index()]);
        let side = if is_linear { &mut linear } else { &mut forward };
        side.node(node);
    }
    let results: Vec<Value> = joint.results()[..outputs].iter().chain(&extras).copied().collect();
    let mut forward = forward.finish(&results)?;
    prune(&mut forward);
    let linear = linear.finish(&joint.results()[outputs..])?;
    Ok(Linearized {
        forward: Arc::new(forward),
        linear: Arc::new(linear),
        residuals: sources,
        active,
    })
}

/// Primitives that only rename or repeat elements: making them again costs no arithmetic.
fn is_free(op: &Primitive) -> bool {
    matches!(
        op,
        Primitive::Constant(_)
            | Primitive::Iota(_)
            | Primitive::Broadcast(_)
            | Primitive::Reshape(_)
            | Primitive::Transpose(_)
            | Primitive::Slice(_)
            | Primitive::Windows(_)
            | Primitive::StopGradient(_)
            | Primitive::Annotate(_)
    )
}

fn is_composite(op: &Primitive) -> bool {
    matches!(op, Primitive::Call(c) if c.function.composite.is_some())
}

/// The transpositions and reshapes through which alone the forward pass goes on with what a
/// composite has made: kept in that order, it need not be kept in two.
fn views_of<'a>(made: Value, users: &[Vec<&'a Node>], results: &[Value]) -> Vec<&'a Node> {
    let mut views = Vec::new();
    let mut last = made;
    while let [user] = users[last.index()][..]
        && matches!(user.op, Primitive::Transpose(_) | Primitive::Reshape(_))
        && !results.contains(&last)
    {
        views.push(user);
        last = user.outputs[0];
    }
    let used = users[last.index()].iter().any(|n| !is_free(&n.op));
    if used { views } else { Vec::new() }
}

/// Copies nodes of one function into a new one.
struct Copier<'a> {
    b: Builder,
    from: &'a Function,
    map: Vec<Option<Value>>,
}

impl<'a> Copier<'a> {
    fn new(name: String, from: &'a Function) -> Self {
        Copier { b: Builder::new(name), from, map: vec![None; from.value_count()] }
    }

    fn parameter(&mut self, v: Value) {
        self.map[v.index()] = Some(self.b.parameter(self.from.ty(v).clone()));
    }

    fn node(&mut self, node: &Node) {
        let Some(args) =
            node.inputs.iter().map(|v| self.map[v.index()]).collect::<Option<Vec<_>>>()
        else {
            return self.b.fail(Error::new("a value is used before it is defined"));
        };
        self.b.set_origin(node.origin.clone());
        let results = self.b.emit(node.op.clone(), &args);
        for (&o, r) in node.outputs.iter().zip(results) {
            self.map[o.index()] = Some(r);
        }
    }

    /// Makes the operand of a transposition or reshape from its result.
    fn undo(&mut self, node: &Node) {
        let operand = node.inputs[0];
        let shape = self.from.ty(operand).shape.clone();
        self.map[operand.index()] = self.map[node.outputs[0].index()].map(|y| match &node.op {
            Primitive::Transpose(t) => {
                let mut inverse = vec![0; t.permutation.len()];
                t.permutation.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
                self.b.transpose(y, &inverse)
            }
            _ => self.b.reshape(y, &shape),
        });
    }

    fn finish(self, results: &[Value]) -> Result<Function> {
        let found = results.iter().map(|v| self.map[v.index()]).collect::<Option<Vec<_>>>();
        let found = found.ok_or_else(|| Error::new("a result is not defined"))?;
        self.b.finish(&found)
    }
}

/// The derivative rule of a call.
pub(crate) fn jvp_call(
    call: &Call,
    b: &mut Builder,
    x: &[Value],
    y: &mut Vec<Value>,
    dx: &[Option<Value>],
) -> Result<Tangents> {
    let function = &call.function;
    let active: Vec<bool> = dx.iter().map(Option::is_some).collect();
    let n = function.results().len();
    let moving: Vec<Value> = dx.iter().flatten().copied().collect();
    if !b.reverse() {
        let dual = dual(function, &active, &vec![false; n])?;
        let args: Vec<Value> = x.iter().chain(&moving).copied().collect();
        let mut all = b.call(&dual.function, &args);
        let tangents = all.split_off(n);
        *y = all;
        return Ok(spread(&dual.active, tangents));
    }
    if function.derivative.is_some() {
        return own_derivative(function, b, x, y, dx);
    }
    let lin = linearize(function, &active, &vec![false; n])?;
    if !lin.active.contains(&true) {
        *y = b.call(function, x);
        return zero(n);
    }
    let tangents = if call.recompute {
        *y = b.call(function, x);
        let again = recomputing(function, &lin, &active)?;
        let args: Vec<Value> = x.iter().chain(&moving).copied().collect();
        b.call(&again, &args)
    } else {
        let forward = b.call(&lin.forward, x);
        *y = forward[..n].to_vec();
        let mut args = lin.residual_values(x, &forward);
        args.extend(moving);
        b.call(&lin.linear, &args)
    };
    Ok(spread(&lin.active, tangents))
}

/// Puts the values of the marked entries in their places.
pub(crate) fn spread(marks: &[bool], values: Vec<Value>) -> Tangents {
    let mut values = values.into_iter();
    marks.iter().map(|&m| if m { values.next() } else { None }).collect()
}

/// `(arguments, active tangents) -> tangents`, computing the forward pass again.
fn recomputing(
    function: &Arc<Function>,
    lin: &Linearized,
    active: &[bool],
) -> Result<Arc<Function>> {
    function.memo.get(Key::Recompute { active: active.to_vec() }, || {
        let mut b = Builder::new(format!("{}.recompute", function.name));
        let types = function.parameter_types();
        let x: Vec<Value> = types.iter().map(|&t| b.parameter(t.clone())).collect();
        let marked = types.iter().zip(active).filter(|(_, a)| **a);
        let dx: Vec<Value> = marked.map(|(&t, _)| b.parameter(t.clone())).collect();
        let x = b.emit(Barrier {}, &x);
        let forward = b.call(&lin.forward, &x);
        let mut args = lin.residual_values(&x, &forward);
        args.extend(dx);
        let tangents = b.call(&lin.linear, &args);
        b.finish(&tangents)
    })
}

/// A composite that brings its own derivative: its backward function stands in for the transpose.
fn own_derivative(
    function: &Arc<Function>,
    b: &mut Builder,
    x: &[Value],
    y: &mut Vec<Value>,
    dx: &[Option<Value>],
) -> Result<Tangents> {
    let Some(own) = &function.derivative else {
        return Err(Error::new("no derivative of its own"));
    };
    let n = function.results().len();
    // Inlined, so that a residual that is an operand or a result is kept only once.
    let mut made = b.inline(&own.forward, x);
    let mut args = made.split_off(n);
    *y = made;
    let is_float: Vec<bool> = function.result_types().iter().map(|t| t.dtype.is_float()).collect();
    let outputs: Vec<Type> =
        function.result_types().into_iter().filter(|t| t.dtype.is_float()).cloned().collect();
    let residuals = args.len();
    for (&x, d) in x.iter().zip(dx) {
        if b.ty(x).dtype.is_float() {
            args.push(d.unwrap_or_else(|| b.zeros_like(x)));
        }
    }
    let op = CustomLinear { backward: own.backward.clone(), residuals, outputs };
    let tangents = b.emit(op, &args);
    Ok(spread(&is_float, tangents))
}

/// The transposition rule of a call to a linear function.
pub(crate) fn transpose_call(
    call: &Call,
    b: &mut Builder,
    inputs: &[Operand],
    dy: &[Option<Value>],
) -> Result<Tangents> {
    let linear: Vec<bool> = inputs.iter().map(Operand::is_linear).collect();
    let marks: Vec<bool> = dy.iter().map(Option::is_some).collect();
    let back = transposed(&call.function, &linear, &marks)?;
    let mut args = Vec::new();
    for operand in inputs.iter().filter(|o| !o.is_linear()) {
        args.push(operand.known()?);
    }
    args.extend(dy.iter().flatten());
    let mut grads = b.call(&back.function, &args).into_iter();
    let mut present = back.present.iter();
    let mut one = |is_linear: bool| {
        let there = is_linear && present.next().copied().unwrap_or(false);
        if there { grads.next() } else { None }
    };
    Ok(linear.iter().map(|&l| one(l)).collect())
}
