//! Derivatives of branches. Both branches are brought to the same tangents and residuals, so that
//! a derivative of a branch is a branch again.

use super::Cond;
use crate::error::Result;
use crate::primitive::{Operand, Tangents, zero};
use crate::program::{Builder, Function, Value};
use crate::transform::derivative::{Dual, Linearized, Residual, dual, linearize, spread};
use crate::transform::transpose::transposed;
use crate::types::Type;
use std::sync::Arc;

/// Transforms both branches so that the tangents that either gives are given by both.
fn unified<T>(
    cond: &Cond,
    transform: impl Fn(&Arc<Function>, &[bool]) -> Result<Arc<T>>,
    active: impl Fn(&T) -> &[bool],
) -> Result<[Arc<T>; 2]> {
    let both = |required: &[bool]| -> Result<[Arc<T>; 2]> {
        Ok([transform(&cond.branches[0], required)?, transform(&cond.branches[1], required)?])
    };
    let [yes, no] = both(&vec![false; cond.branches[0].results().len()])?;
    let either: Vec<bool> =
        active(&yes).iter().zip(active(&no)).map(|(yes, no)| *yes || *no).collect();
    both(&either)
}

pub(super) fn forward_mode(
    cond: &Cond,
    b: &mut Builder,
    x: &[Value],
    y: &mut Vec<Value>,
    dx: &[Option<Value>],
) -> Result<Tangents> {
    let marks: Vec<bool> = dx.iter().map(Option::is_some).collect();
    let duals: [Arc<Dual>; 2] =
        unified(cond, |f, required| dual(f, &marks, required), |d| &d.active)?;
    let branches = [duals[0].function.clone(), duals[1].function.clone()];
    let args: Vec<Value> = x.iter().copied().chain(dx.iter().flatten().copied()).collect();
    *y = b.emit(Cond { branches }, &args);
    let tangents = y.split_off(cond.branches[0].results().len());
    Ok(spread(&duals[0].active, tangents))
}

/// Where each branch's extra residuals stand among the extra results of the forward `cond`:
/// branches share places of one type, as only one of them runs.
fn places(lins: &[Arc<Linearized>; 2], results: usize) -> (Vec<Type>, [Vec<usize>; 2]) {
    let mut types: Vec<Type> = Vec::new();
    let places = [0, 1].map(|which| {
        let mut taken = vec![false; types.len()];
        let mut mine = Vec::new();
        for ty in lins[which].forward.result_types().split_off(results) {
            let free = (0..types.len()).find(|&i| !taken[i] && types[i] == *ty);
            let place = free.unwrap_or_else(|| {
                types.push(ty.clone());
                taken.push(false);
                types.len() - 1
            });
            taken[place] = true;
            mine.push(place);
        }
        mine
    });
    (types, places)
}

pub(super) fn reverse_mode(
    cond: &Cond,
    b: &mut Builder,
    x: &[Value],
    y: &mut Vec<Value>,
    dx: &[Option<Value>],
) -> Result<Tangents> {
    let marks: Vec<bool> = dx.iter().map(Option::is_some).collect();
    let lins = unified(cond, |f, required| linearize(f, &marks, required), |l| &l.active)?;
    let n = cond.branches[0].results().len();
    if !lins[0].active.contains(&true) {
        *y = b.emit(cond.clone(), x);
        return zero(n);
    }
    let (extra_types, places) = places(&lins, n);
    let types: Vec<Type> = cond.branches[0].parameter_types().into_iter().cloned().collect();

    let forward = |which: usize| -> Result<Arc<Function>> {
        let lin = &lins[which];
        let mut f = Builder::new(lin.forward.name.clone());
        let args = f.parameters(&types);
        let all = f.inline(&lin.forward, &args);
        let mut results = all[..n].to_vec();
        for (place, ty) in extra_types.iter().enumerate() {
            let mine = places[which].iter().position(|&p| p == place);
            results.push(mine.map_or_else(|| f.full(ty.clone(), 0.0), |i| all[n + i]));
        }
        Ok(Arc::new(f.finish(&results)?))
    };
    let out = b.emit(Cond { branches: [forward(0)?, forward(1)?] }, x);
    *y = out[..n].to_vec();

    let tangent_types: Vec<Type> =
        types.iter().zip(&marks).filter(|(_, m)| **m).map(|(ty, _)| ty.clone()).collect();
    let linear = |which: usize| -> Result<Arc<Function>> {
        let lin = &lins[which];
        let mut f = Builder::new(lin.linear.name.clone());
        let (known, extras) = (f.parameters(&types), f.parameters(&extra_types));
        let tangents = f.parameters(&tangent_types);
        let pick = |r: &Residual| match *r {
            Residual::Parameter(i) => known[i],
            Residual::Extra(i) => extras[places[which][i]],
        };
        let mut args: Vec<Value> = lin.residuals.iter().map(pick).collect();
        args.extend(tangents);
        let results = f.inline(&lin.linear, &args);
        Ok(Arc::new(f.finish(&results)?))
    };
    let mut args = [x, &out[n..]].concat();
    args.extend(dx.iter().flatten());
    let tangents = b.emit(Cond { branches: [linear(0)?, linear(1)?] }, &args);
    Ok(spread(&lins[0].active, tangents))
}

pub(super) fn transpose_linear(
    cond: &Cond,
    b: &mut Builder,
    inputs: &[Operand],
    dy: &[Option<Value>],
) -> Result<Tangents> {
    let linear: Vec<bool> = inputs[1..].iter().map(Operand::is_linear).collect();
    let given: Vec<bool> = dy.iter().map(Option::is_some).collect();
    let backs = [
        transposed(&cond.branches[0], &linear, &given)?,
        transposed(&cond.branches[1], &linear, &given)?,
    ];
    let wanted: Vec<Type> = inputs[1..].iter().filter(|o| o.is_linear()).map(|o| o.ty(b)).collect();
    let either: Vec<bool> =
        backs[0].present.iter().zip(&backs[1].present).map(|(a, b)| *a || *b).collect();

    let branch = |which: usize| -> Result<Arc<Function>> {
        let back = &backs[which];
        let mut f = Builder::new(back.function.name.clone());
        let types: Vec<Type> = back.function.parameter_types().into_iter().cloned().collect();
        let args = f.parameters(&types);
        let found = f.inline(&back.function, &args);
        let mut results = Vec::new();
        for (i, d) in spread(&back.present, found).into_iter().enumerate() {
            if either[i] {
                results.push(d.unwrap_or_else(|| f.full(wanted[i].clone(), 0.0)));
            }
        }
        Ok(Arc::new(f.finish(&results)?))
    };
    let op = Cond { branches: [branch(0)?, branch(1)?] };
    let mut args = Vec::new();
    for operand in inputs.iter().filter(|o| !o.is_linear()) {
        args.push(operand.known()?);
    }
    args.extend(dy.iter().flatten());
    let mut found = spread(&either, b.emit(op, &args)).into_iter();
    let each = |&l: &bool| if l { found.next().flatten() } else { None };
    Ok(std::iter::once(None).chain(linear.iter().map(each).collect::<Vec<_>>()).collect())
}
