//! How primitives act on permuted values.

use super::{Free, Permuted, Stored, Walk, identity, inverse, is_identity};
use ferrata_ir::primitive::{
    ArgReduce, Concatenate, Cumulative, Dot, Pad, Reduce, Reshape, Reverse, Slice, Windows,
};
use ferrata_ir::{Node, Primitive, Result, Value};

impl Walk {
    /// The results of a node, if it can work on values in another order than the user's.
    pub(super) fn permuted(&mut self, op: &Primitive, node: &Node) -> Result<Option<Vec<Stored>>> {
        let one = |x: Permuted| Ok(Some(vec![Stored::Value(x)]));
        match op {
            Primitive::Constant(c) => {
                return Ok(Some(vec![Stored::Free(Free::Constant(c.clone()))]));
            }
            Primitive::Iota(i) => return Ok(Some(vec![Stored::Free(Free::Iota(i.clone()))])),
            Primitive::Broadcast(b) => {
                let x = self.value(node.inputs[0])?;
                return Ok(Some(vec![Stored::Free(Free::Broadcast(b.clone(), x))]));
            }
            Primitive::Convolution(c) => {
                let (x, w) = (node.inputs[0], node.inputs[1]);
                return one(self.convolution(c, x, w)?);
            }
            Primitive::Elementwise(_) | Primitive::Cast(_) => {
                return one(self.elementwise(op, node)?);
            }
            Primitive::StopGradient(_) | Primitive::Annotate(_) | Primitive::Barrier(_) => {
                let inputs =
                    node.inputs.iter().map(|&v| self.value(v)).collect::<Result<Vec<_>>>()?;
                let values: Vec<Value> = inputs.iter().map(|x| x.value).collect();
                let outputs = self.b.emit(op.clone(), &values);
                let same = |(value, x): (Value, Permuted)| Stored::Value(Permuted { value, ..x });
                return Ok(Some(outputs.into_iter().zip(inputs).map(same).collect()));
            }
            _ => {}
        }
        let order = self.other_order(&node.inputs)?;
        let Some(order) = order else { return Ok(None) };
        let place = inverse(&order);
        let rank = order.len();
        let all = |dims: &[usize]| -> Vec<usize> { dims.iter().map(|&d| order[d]).collect() };
        let rising = |dims: &[usize]| {
            let mut dims = all(dims);
            dims.sort_unstable();
            dims
        };
        // The order of the dimensions that are left when those of `gone` are.
        let without = |gone: &[usize]| -> Vec<usize> {
            let kept: Vec<usize> = (0..rank).filter(|d| !gone.contains(d)).collect();
            let rank_of = |d: usize| kept.iter().filter(|&&k| order[k] < order[d]).count();
            kept.iter().map(|&d| rank_of(d)).collect()
        };
        let wanted = order.clone();
        let (op, order): (Primitive, Vec<usize>) = match op {
            Primitive::Transpose(t) => {
                let x = self.value(node.inputs[0])?;
                return one(Permuted { order: all(&t.permutation), ..x });
            }
            Primitive::Reduce(r) => {
                (Reduce { kind: r.kind, dims: rising(&r.dims) }.into(), without(&r.dims))
            }
            Primitive::ArgReduce(r) => {
                (ArgReduce { kind: r.kind, dim: order[r.dim] }.into(), without(&[r.dim]))
            }
            Primitive::Cumulative(c) => {
                (Cumulative { dim: order[c.dim], ..c.clone() }.into(), order.clone())
            }
            Primitive::Slice(s) => {
                let (start, limit) = (picked(&place, &s.start), picked(&place, &s.limit));
                (Slice { start, limit, stride: picked(&place, &s.stride) }.into(), order.clone())
            }
            Primitive::Reverse(r) => (Reverse { dims: rising(&r.dims) }.into(), order.clone()),
            Primitive::Windows(w) => {
                let dim = order[w.dim];
                // The elements of windows follow the windows in both orders.
                let after = |d: &usize| d + usize::from(*d > dim);
                let mut new: Vec<usize> = order.iter().map(after).collect();
                new.insert(w.dim + 1, dim + 1);
                (Windows { dim, ..w.clone() }.into(), new)
            }
            Primitive::Pad(p) => {
                let (low, high) = (picked(&place, &p.low), picked(&place, &p.high));
                let x = self.in_order(node.inputs[0], &order)?;
                let fill = self.plain(node.inputs[1])?;
                let op = Pad { low, high, interior: picked(&place, &p.interior) };
                let value = self.b.emit1(op, &[x, fill]);
                return one(Permuted { value, order, anchored: false });
            }
            Primitive::Concatenate(c) => (Concatenate { dim: order[c.dim] }.into(), order.clone()),
            Primitive::Reshape(r) => {
                let x = self.value(node.inputs[0])?;
                return Ok(self.reshape(&x, &r.shape).map(|x| vec![Stored::Value(x)]));
            }
            Primitive::Dot(d) => return one(self.product(d, node)?),
            _ => return Ok(None),
        };
        let inputs =
            node.inputs.iter().map(|&v| self.in_order(v, &wanted)).collect::<Result<Vec<_>>>()?;
        let value = self.b.emit1(op, &inputs);
        one(Permuted { value, order, anchored: false })
    }

    /// A value in whatever order it is stored.
    pub(super) fn value(&mut self, v: Value) -> Result<Permuted> {
        if let Stored::Value(x) = self.stored(v)? {
            return Ok(x.clone());
        }
        let value = self.plain(v)?;
        Ok(Permuted::plain(&self.b, value))
    }

    /// The first order among these values that is not the user's.
    fn other_order(&self, values: &[Value]) -> Result<Option<Vec<usize>>> {
        for &v in values {
            if let Stored::Value(x) = self.stored(v)?
                && !is_identity(&x.order)
            {
                return Ok(Some(x.order.clone()));
            }
        }
        Ok(None)
    }

    /// Elementwise work, in the order that most of its operands have.
    fn elementwise(&mut self, op: &Primitive, node: &Node) -> Result<Permuted> {
        let mut orders: Vec<(Vec<usize>, usize)> = Vec::new();
        let mut anchored = false;
        for &v in &node.inputs {
            let Stored::Value(x) = self.stored(v)? else { continue };
            anchored |= x.anchored && x.order.len() > 1;
            match orders.iter_mut().find(|(order, _)| *order == x.order) {
                Some((_, count)) => *count += 1,
                None => orders.push((x.order.clone(), 1)),
            }
        }
        let rank = match self.stored(node.inputs[0])? {
            Stored::Value(x) => x.order.len(),
            Stored::Free(x) => x.rank(),
        };
        // What is made of weights stays in their order; else one that is not the user's wins.
        let weight =
            |(order, count): &(Vec<usize>, usize)| 2 * count + usize::from(!is_identity(order));
        let order = if anchored { None } else { orders.iter().max_by_key(|o| weight(o)) };
        let order = order.map_or_else(|| identity(rank), |(order, _)| order.clone());
        let inputs =
            node.inputs.iter().map(|&v| self.in_order(v, &order)).collect::<Result<Vec<_>>>()?;
        let value = self.b.emit1(op.clone(), &inputs);
        Ok(Permuted { value, order, anchored })
    }

    /// The elements in another shape, if dimensions that become one are neighbours where they are
    /// stored.
    pub(super) fn reshape(&mut self, x: &Permuted, shape: &[usize]) -> Option<Permuted> {
        let stored = self.ty(x.value).shape;
        let from: Vec<usize> = x.order.iter().map(|&d| stored[d]).collect();
        let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
        for (old, new) in groups_of(&from, shape)? {
            let places: Vec<usize> =
                old.iter().filter(|&&d| from[d] != 1).map(|&d| x.order[d]).collect();
            // Only dimensions of size 1 may lie between.
            let follows = |w: &[usize]| w[0] < w[1] && (w[0] + 1..w[1]).all(|d| stored[d] == 1);
            if !places.windows(2).all(follows) {
                return None;
            }
            // Groups without elements to step over may stand anywhere.
            groups.push((places.first().map_or(0, |p| p + 1), new));
        }
        groups.sort_by_key(|(place, _)| *place);
        let place: Vec<usize> = groups.into_iter().flat_map(|(_, new)| new).collect();
        let sizes: Vec<usize> = place.iter().map(|&d| shape[d]).collect();
        let value = self.b.emit1(Reshape { shape: sizes }, &[x.value]);
        Some(Permuted { value, order: inverse(&place), anchored: false })
    }

    /// A product of operands as they are stored.
    fn product(&mut self, dot: &Dot, node: &Node) -> Result<Permuted> {
        let (x, y) = (self.value(node.inputs[0])?, self.value(node.inputs[1])?);
        let at =
            |x: &Permuted, dims: &[usize]| dims.iter().map(|&d| x.order[d]).collect::<Vec<_>>();
        let op = Dot {
            left_batch: at(&x, &dot.left_batch),
            right_batch: at(&y, &dot.right_batch),
            left_contract: at(&x, &dot.left_contract),
            right_contract: at(&y, &dot.right_contract),
        };
        // The free dimensions of the result stand as they do in the operands.
        let places = |x: &Permuted, free: &[usize]| -> Vec<usize> {
            let place = |d: usize| free.iter().filter(|&&e| x.order[e] < x.order[d]).count();
            free.iter().map(|&d| place(d)).collect()
        };
        let (left, right) = (dot.left_free(x.order.len()), dot.right_free(y.order.len()));
        let (batch, rows) = (dot.left_batch.len(), left.len());
        let mut order = identity(batch);
        order.extend(places(&x, &left).into_iter().map(|d| d + batch));
        order.extend(places(&y, &right).into_iter().map(|d| d + batch + rows));
        let value = self.b.emit1(op, &[x.value, y.value]);
        Ok(Permuted { value, order, anchored: false })
    }
}

/// What a list says of these dimensions, one after the other.
fn picked<T: Copy>(dims: &[usize], list: &[T]) -> Vec<T> {
    dims.iter().map(|&d| list[d]).collect()
}

/// The dimensions of two shapes of the same elements, in the smallest groups of equal size. `None`
/// if there are no elements.
fn groups_of(from: &[usize], to: &[usize]) -> Option<Vec<(Vec<usize>, Vec<usize>)>> {
    if from.contains(&0) {
        return None;
    }
    let mut groups = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        if from.get(i) == Some(&1) {
            groups.push((vec![i], vec![]));
            i += 1;
        } else if to.get(j) == Some(&1) {
            groups.push((vec![], vec![j]));
            j += 1;
        } else {
            let (first, second) = (i, j);
            let (mut left, mut right) = (*from.get(i)?, *to.get(j)?);
            (i, j) = (i + 1, j + 1);
            while left != right {
                if left < right {
                    left *= *from.get(i)?;
                    i += 1;
                } else {
                    right *= *to.get(j)?;
                    j += 1;
                }
            }
            groups.push(((first..i).collect(), (second..j).collect()));
        }
    }
    Some(groups)
}
