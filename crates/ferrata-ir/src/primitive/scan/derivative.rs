//! Derivatives of scans: tangents are carried beside values (forward mode), or in a linear scan of
//! their own (reverse mode), whose transpose is a scan that runs the other way.

use super::{Save, Scan};
use crate::error::Result;
use crate::primitive::{Call, Concatenate, Operand, Tangents, zero};
use crate::program::{Builder, Function, Value};
use crate::transform::derivative::{Residual, dual, jvp_call, linearize, spread};
use crate::transform::{prune, transpose};
use crate::types::Type;
use std::sync::Arc;

/// The items whose marks are set.
fn marked<T: Clone>(items: &[T], marks: &[bool]) -> Vec<T> {
    items.iter().zip(marks).filter(|(_, m)| **m).map(|(item, _)| item.clone()).collect()
}

/// Where the linear scan gets a residual from.
enum Source {
    /// The same value in every iteration.
    Constant(Value),
    /// A stacked value.
    Stacked(Value),
}

impl Scan {
    /// Transforms the body for the tangents that its carries have in any iteration: those that
    /// start with one, and those that gain one. Also gives the marks of the operands.
    fn settled<T>(
        &self,
        dx: &[Option<Value>],
        transform: impl Fn(&[bool], &[bool]) -> Result<Arc<T>>,
        active: impl Fn(&T) -> &[bool],
    ) -> Result<(Vec<bool>, Arc<T>)> {
        let mut marks: Vec<bool> = dx.iter().map(Option::is_some).collect();
        loop {
            let (_, carries, _) = self.parts(&marks);
            let mut required = carries.to_vec();
            required.resize(self.body.results().len(), false);
            let done = transform(&marks, &required)?;
            let found = &active(&done)[..self.carries];
            if found == carries {
                return Ok((marks, done));
            }
            marks[self.constants..][..self.carries].copy_from_slice(found);
        }
    }

    /// Tangents of the carries in `marks`, zeros where none is given.
    fn initial(
        &self,
        b: &mut Builder,
        x: &[Value],
        dx: &[Option<Value>],
        marks: &[bool],
    ) -> Vec<Value> {
        let range = self.constants..self.constants + self.carries;
        let carries = range.filter(|&i| marks[i]);
        carries.map(|i| dx[i].unwrap_or_else(|| b.zeros_like(x[i]))).collect()
    }

    pub(super) fn forward_mode(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let (marks, dual) =
            self.settled(dx, |active, required| dual(&self.body, active, required), |d| &d.active)?;
        let types: Vec<Type> = self.body.parameter_types().into_iter().cloned().collect();
        let (ct, it, st) = self.parts(&types);
        let (cm, im, sm) = self.parts(&marks);
        let mut body = Builder::new(dual.function.name.clone());
        let (constants, d_constants) = (body.parameters(ct), body.parameters(&marked(ct, cm)));
        let (carries, d_carries) = (body.parameters(it), body.parameters(&marked(it, im)));
        let (slices, d_slices) = (body.parameters(st), body.parameters(&marked(st, sm)));
        let args = [constants, carries, slices, d_constants, d_carries, d_slices].concat();
        let all = body.inline(&dual.function, &args);
        let n = self.body.results().len();
        let moving = im.iter().filter(|m| **m).count();
        let (values, tangents) = all.split_at(n);
        let results = [
            &values[..self.carries],
            &tangents[..moving],
            &values[self.carries..],
            &tangents[moving..],
        ];
        let body = Arc::new(body.finish(&results.concat())?);

        let (c, i, s) = self.parts(x);
        let (dc, _, ds) = self.parts(dx);
        let flat = |d: &[Option<Value>]| d.iter().flatten().copied().collect::<Vec<_>>();
        let constants = [c, &flat(dc)].concat();
        let carries = [i, &self.initial(b, x, dx, &marks)].concat();
        let op = Scan {
            body,
            constants: constants.len(),
            carries: carries.len(),
            save: self.save,
            ..self.clone()
        };
        let out = b.emit(op, &[constants, carries, [s, &flat(ds)].concat()].concat());
        let (carries, rest) = out.split_at(self.carries);
        let (d_carries, rest) = rest.split_at(moving);
        let (stacks, d_stacks) = rest.split_at(n - self.carries);
        *y = [carries, stacks].concat();
        Ok(spread(&dual.active, [d_carries, d_stacks].concat()))
    }

    pub(super) fn reverse_mode(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let (marks, lin) = self.settled(
            dx,
            |active, required| linearize(&self.body, active, required),
            |l| &l.active,
        )?;
        let n = self.body.results().len();
        if !lin.active.contains(&true) {
            *y = b.emit(self.clone(), x);
            return zero(n);
        }

        // The forward scan also stacks the residuals that neither are the same in every iteration
        // nor are stacked already.
        let outside = self.hoist(b, &lin.forward, &x[..self.constants]);
        let mut forward = (*lin.forward).clone();
        forward.results.truncate(n);
        let mut sources = Vec::new();
        for residual in &lin.residuals {
            let v = match *residual {
                Residual::Parameter(i) => lin.forward.parameters()[i],
                Residual::Extra(i) => lin.forward.results()[n + i],
            };
            sources.push(match (outside[v.index()], *residual) {
                (Some(outer), _) => Ok(Source::Constant(outer)),
                (None, Residual::Parameter(i)) if i >= self.constants + self.carries => {
                    Ok(Source::Stacked(x[i]))
                }
                _ => {
                    forward.results.push(v);
                    Err(forward.results.len() - 1)
                }
            });
        }
        prune(&mut forward);
        let out = b.emit(Scan { body: Arc::new(forward), ..self.clone() }, x);
        *y = out[..n].to_vec();
        let sources: Vec<Source> =
            sources.into_iter().map(|s| s.unwrap_or_else(|i| Source::Stacked(out[i]))).collect();

        let tangents = self.linear_scan(b, &lin.linear, &sources, x, dx, &marks)?;
        Ok(spread(&lin.active, tangents))
    }

    /// Values of `body` that depend on its constants alone, computed outside of the loop.
    fn hoist(&self, b: &mut Builder, body: &Function, constants: &[Value]) -> Vec<Option<Value>> {
        let mut outside = vec![None; body.value_count()];
        for (p, &v) in body.parameters().iter().zip(constants) {
            outside[p.index()] = Some(v);
        }
        let outer = b.origin().clone();
        for node in body.nodes() {
            let args: Option<Vec<Value>> = node.inputs.iter().map(|v| outside[v.index()]).collect();
            let Some(args) = args.filter(|_| !node.op.has_effect()) else { continue };
            b.set_origin(outer.enter(&node.origin));
            for (&o, v) in node.outputs.iter().zip(b.emit(node.op.clone(), &args)) {
                outside[o.index()] = Some(v);
            }
        }
        b.set_origin(outer);
        outside
    }

    /// The scan of the tangents alone.
    fn linear_scan(
        &self,
        b: &mut Builder,
        linear: &Function,
        sources: &[Source],
        x: &[Value],
        dx: &[Option<Value>],
        marks: &[bool],
    ) -> Result<Vec<Value>> {
        let (residual_types, tangent_types): (Vec<Type>, Vec<Type>) = {
            let all: Vec<Type> = linear.parameter_types().into_iter().cloned().collect();
            (all[..sources.len()].to_vec(), all[sources.len()..].to_vec())
        };
        let (cm, im, _) = self.parts(marks);
        let count = |marks: &[bool]| marks.iter().filter(|m| **m).count();
        let (dct, rest) = tangent_types.split_at(count(cm));
        let (dit, dst) = rest.split_at(count(im));
        let is_constant: Vec<bool> =
            sources.iter().map(|s| matches!(s, Source::Constant(_))).collect();
        let is_stacked: Vec<bool> = is_constant.iter().map(|c| !c).collect();

        let mut body = Builder::new(linear.name.clone());
        let constants = body.parameters(&marked(&residual_types, &is_constant));
        let d_constants = body.parameters(dct);
        let d_carries = body.parameters(dit);
        let stacked = body.parameters(&marked(&residual_types, &is_stacked));
        let d_slices = body.parameters(dst);
        let (mut constants, mut stacked) = (constants.into_iter(), stacked.into_iter());
        let mut args: Vec<Value> = is_constant
            .iter()
            .filter_map(|&c| if c { constants.next() } else { stacked.next() })
            .collect();
        args.extend([d_constants, d_carries, d_slices].concat());
        let tangents = body.inline(linear, &args);
        let body = Arc::new(body.finish(&tangents)?);

        let (dc, _, ds) = self.parts(dx);
        let mut constants: Vec<Value> = Vec::new();
        let mut stacked: Vec<Value> = Vec::new();
        for source in sources {
            match source {
                Source::Constant(v) => constants.push(*v),
                Source::Stacked(v) => stacked.push(*v),
            }
        }
        constants.extend(dc.iter().flatten());
        stacked.extend(ds.iter().flatten());
        let carries = self.initial(b, x, dx, marks);
        let op = Scan { body, constants: constants.len(), carries: carries.len(), ..self.clone() };
        Ok(b.emit(op, &[constants, carries, stacked].concat()))
    }

    /// Reverse mode through an equal program whose segments of `k` iterations are computed again.
    pub(super) fn in_segments(
        &self,
        k: usize,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let mut s = Builder::new(format!("{}.segments", self.body.name));
        let types: Vec<Type> = x.iter().map(|&v| b.ty(v).clone()).collect();
        let args = s.parameters(&types);
        let (constants, carries, stacked) = self.parts(&args);
        let segments = self.length.checked_div(k).unwrap_or(0);
        let (whole, rest) = (segments * k, self.length - segments * k);
        // In running order: whole segments, then the rest.
        let split = if self.reverse { rest } else { whole };
        let cut = |s: &mut Builder, from: usize, to: usize| -> Vec<Value> {
            stacked.iter().map(|&v| s.slice_dim(v, 0, from, to)).collect()
        };
        let (low, high) = (cut(&mut s, 0, split), cut(&mut s, split, self.length));
        let (main, last) = if self.reverse { (high, low) } else { (low, high) };

        let segment = self.segment(k)?;
        let outer = Scan { body: segment, length: segments, save: Save::All, ..self.clone() };
        let regroup = |s: &mut Builder, v: Value, leading: &[usize], drop: usize| {
            let shape = [leading, &s.ty(v).shape[drop..]].concat();
            s.reshape(v, &shape)
        };
        let main: Vec<Value> =
            main.into_iter().map(|v| regroup(&mut s, v, &[segments, k], 1)).collect();
        let out = s.emit(outer, &[constants, carries, &main].concat());
        let (carries, stacks) = out.split_at(self.carries);
        let mut stacks: Vec<Value> =
            stacks.iter().map(|&v| regroup(&mut s, v, &[whole], 2)).collect();
        let mut carries = carries.to_vec();
        if rest > 0 {
            let call = Call { function: self.segment(rest)?, recompute: true };
            let out = s.emit(call, &[constants, &carries, &last].concat());
            for (all, &part) in stacks.iter_mut().zip(&out[self.carries..]) {
                let parts = if self.reverse { [part, *all] } else { [*all, part] };
                *all = s.emit1(Concatenate { dim: 0 }, &parts);
            }
            carries = out[..self.carries].to_vec();
        }
        let function = Arc::new(s.finish(&[carries, stacks].concat())?);
        jvp_call(&Call { function, recompute: false }, b, x, y, dx)
    }

    /// `k` iterations as one function, which the derivative computes again.
    fn segment(&self, k: usize) -> Result<Arc<Function>> {
        let mut types: Vec<Type> = self.body.parameter_types().into_iter().cloned().collect();
        for ty in &mut types[self.constants + self.carries..] {
            ty.shape.insert(0, k);
        }
        let inner = {
            let mut b = Builder::new(format!("{}.segment", self.body.name));
            let args = b.parameters(&types);
            let out = b.emit(Scan { length: k, save: Save::All, ..self.clone() }, &args);
            Arc::new(b.finish(&out)?)
        };
        let mut b = Builder::new(inner.name.clone());
        let args = b.parameters(&types);
        let out = b.emit(Call { function: inner, recompute: true }, &args);
        Ok(Arc::new(b.finish(&out)?))
    }

    /// The transposed loop runs the other way: it carries the cotangents of the carries and the
    /// sums of the cotangents of the constants.
    pub(super) fn transpose_linear(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        // A tangent that happens to be known can only be zero, so every carry counts as linear.
        let mut linear: Vec<bool> = inputs.iter().map(Operand::is_linear).collect();
        linear[self.constants..][..self.carries].fill(true);
        let mut given: Vec<bool> = dy.iter().map(Option::is_some).collect();
        given[..self.carries].fill(true);
        let back = transpose::transposed(&self.body, &linear, &given)?;
        let (lc, _, ls) = self.parts(&linear);
        let types: Vec<Type> = self.body.parameter_types().into_iter().cloned().collect();
        let (ct, it, st) = self.parts(&types);
        let known = |marks: &[bool]| marks.iter().map(|l| !l).collect::<Vec<_>>();
        let dy_types: Vec<Type> = self.body.result_types().into_iter().cloned().collect();
        let dy_types = marked(&dy_types[self.carries..], &given[self.carries..]);

        // Which linear parameters get a cotangent, one entry for each parameter.
        let mut present = back.present.iter().copied();
        let present: Vec<bool> =
            linear.iter().map(|&l| l && present.next().unwrap_or(false)).collect();
        let (pc, pi, ps) = self.parts(&present);

        let mut body = Builder::new(back.function.name.clone());
        let constants = body.parameters(&marked(ct, &known(lc)));
        let d_carries = body.parameters(it);
        let sums = body.parameters(&marked(ct, pc));
        let stacked = body.parameters(&marked(st, &known(ls)));
        let d_slices = body.parameters(&dy_types);
        let args = [constants, stacked, d_carries, d_slices].concat();
        let mut found = body.inline(&back.function, &args).into_iter();
        let terms: Vec<Value> = found.by_ref().take(sums.len()).collect();
        let mut results = Vec::new();
        for (ty, &there) in it.iter().zip(pi) {
            let d = if there { found.next() } else { None };
            results.push(d.unwrap_or_else(|| body.full(ty.clone(), 0.0)));
        }
        for (&sum, term) in sums.iter().zip(terms) {
            results.push(body.add(sum, term));
        }
        results.extend(found);
        let body = Arc::new(body.finish(&results)?);

        let (c, _, s) = self.parts(inputs);
        let known = |part: &[Operand]| {
            part.iter().filter(|o| !o.is_linear()).map(Operand::known).collect::<Result<Vec<_>>>()
        };
        let (constants, stacked) = (known(c)?, known(s)?);
        let mut carries = Vec::new();
        for (d, ty) in dy.iter().zip(it) {
            carries.push(d.unwrap_or_else(|| b.full(ty.clone(), 0.0)));
        }
        for ty in marked(ct, pc) {
            carries.push(b.full(ty, 0.0));
        }
        let op = Scan {
            body,
            constants: constants.len(),
            carries: carries.len(),
            reverse: !self.reverse,
            ..self.clone()
        };
        let d_stacks: Vec<Value> = dy[self.carries..].iter().flatten().copied().collect();
        let out = b.emit(op, &[constants, carries, stacked, d_stacks].concat());
        let (d_carries, rest) = out.split_at(self.carries);
        let (sums, d_stacks) = rest.split_at(pc.iter().filter(|p| **p).count());
        let mut tangents = spread(pc, sums.to_vec());
        tangents.extend(
            d_carries
                .iter()
                .zip(&inputs[self.constants..])
                .map(|(&d, operand)| operand.is_linear().then_some(d)),
        );
        tangents.extend(spread(ps, d_stacks.to_vec()));
        Ok(tangents)
    }
}
