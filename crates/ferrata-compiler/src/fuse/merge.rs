//! Two nests that read the same value become one.

use super::{Fuser, Group, LARGEST_BODY, MOST_OPERANDS};
use crate::body::Id;
use crate::nest::Nest;
use crate::strided::Map;

/// Values with fewer elements don't bring their users together.
const FEW: usize = 2;

impl Fuser<'_> {
    /// Merges nests that want `value`, where loops and order of work allow it.
    pub(super) fn merge_users(&mut self, value: Id) {
        // Sharing one number or a short list is no reason to wait for each other.
        if self.body.values[value].ty.elements() < FEW {
            return;
        }
        let mut users: Vec<usize> = self.wanted_by[value].iter().copied().collect();
        users.retain(|&g| matches!(self.groups[g], Some(Group::Nest(_))) && self.wants(g, value));
        let mut kept: Vec<usize> = Vec::new();
        for g in users {
            if !kept.iter().any(|&k| self.merge(k, g, value)) {
                kept.push(g);
            }
        }
    }

    /// Moves group `from` into group `into`.
    fn merge(&mut self, into: usize, from: usize, value: Id) -> bool {
        let (Some(Group::Nest(a)), Some(Group::Nest(b))) = (&self.groups[into], &self.groups[from])
        else {
            return false;
        };
        let Some(nest) = merged(a, b, value).or_else(|| merged(b, a, value)) else { return false };
        let wanted: Vec<Id> = b.demands.keys().copied().collect();
        if self.reaches(vec![into], from) || self.reaches(vec![from], into) {
            return false;
        }
        for v in wanted {
            self.wanted_by[v].remove(&from);
            self.wanted_by[v].insert(into);
        }
        self.last[into] = self.last[into].max(self.last[from]);
        self.groups[into] = Some(Group::Nest(nest));
        self.groups[from] = None;
        true
    }
}

/// One nest that does the work of both in the loops of `a`.
fn merged(a: &Nest, b: &Nest, value: Id) -> Option<Nest> {
    let (mut a, mut b) = (a.clone(), b.clone());
    let pairs = align(&mut a, &mut b, value)?;
    let columns = |nest: &Nest, l: usize| nest.columns.as_ref().is_some_and(|c| c[l]);
    // Loops that only `a` has must be columns, along which all of `b` is constant.
    let extra = pairs.iter().enumerate().any(|(l, p)| p.is_none() && !columns(&a, l));
    if extra || (pairs.contains(&None) && b.columns.is_some()) {
        return None;
    }
    b.follow(&pairs, &a.loops);
    let columns = match (a.columns.clone(), b.columns.take()) {
        (Some(x), Some(y)) if x != y => return None,
        (x, y) => x.or(y),
    };
    a.columns = columns;
    a.outputs.extend(b.outputs);
    if let Some(columns) = &a.columns
        && !a.outputs.iter().all(|o| o.allows(columns))
    {
        return None;
    }
    for member in b.members {
        if !a.members.iter().any(|m| m.op == member.op && m.map == member.map) {
            a.members.push(member);
        }
    }
    // Users of a value stand behind its maker in the body.
    a.members.sort_by_key(|m| std::cmp::Reverse(m.op));
    for (id, maps) in b.demands {
        for map in maps {
            a.demand(id, map);
        }
    }
    let fits =
        a.members.len() <= LARGEST_BODY && a.demands.len() + a.outputs.len() <= MOST_OPERANDS;
    fits.then_some(a)
}

/// Splits loops of both nests until they reach the elements of `value` by the same loops. Returns
/// for each loop of `a` the loop of `b` that goes with it; all loops of `b` have a partner.
fn align(a: &mut Nest, b: &mut Nest, value: Id) -> Option<Vec<Option<usize>>> {
    let single = |nest: &Nest| -> Option<Map> {
        let [map] = nest.demands.get(&value)?.as_slice() else { return None };
        Some(map.clone())
    };
    loop {
        let (x, y) = (single(a)?, single(b)?);
        if x.offset != y.offset {
            return None;
        }
        let (left, right) = (moving(&x), moving(&y));
        let differs =
            |(l, r): (&usize, &usize)| a.loops[*l] != b.loops[*r] || x.strides[*l] != y.strides[*r];
        let Some(at) = left.iter().zip(&right).position(differs) else {
            if left.len() != right.len() {
                return None;
            }
            return pair(a, b, (&x, &y), (&left, &right));
        };
        let (l, r) = (left[at], right[at]);
        let (m, n) = (a.loops[l], b.loops[r]);
        if x.strides[l] != y.strides[r] {
            return None;
        } else if m > n && m % n == 0 {
            a.split(l, n);
        } else if n > m && n % m == 0 {
            b.split(r, m);
        } else {
            return None;
        }
    }
}

/// Loops that move through the value, the innermost first.
fn moving(map: &Map) -> Vec<usize> {
    let mut loops: Vec<usize> = (0..map.strides.len()).filter(|&l| map.strides[l] != 0).collect();
    loops.sort_by_key(|&l| map.strides[l].abs());
    loops
}

fn pair(
    a: &Nest,
    b: &Nest,
    (x, y): (&Map, &Map),
    (left, right): (&[usize], &[usize]),
) -> Option<Vec<Option<usize>>> {
    let mut pairs = vec![None; a.loops.len()];
    left.iter().zip(right).for_each(|(&l, &r)| pairs[l] = Some(r));
    let still = |map: &Map| -> Vec<usize> {
        (0..map.strides.len()).filter(|&l| map.strides[l] == 0).collect()
    };
    let (left, right) = (still(x), still(y));
    if right.is_empty() {
        return Some(pairs);
    }
    // Both go over columns that the value is constant along.
    let column = |nest: &Nest, l: &usize| nest.columns.as_ref().is_some_and(|c| c[*l]);
    let alike = left.len() == right.len()
        && left.iter().zip(&right).all(|(l, r)| a.loops[*l] == b.loops[*r])
        && left.iter().all(|l| column(a, l))
        && right.iter().all(|r| column(b, r));
    if !alike {
        return None;
    }
    left.iter().zip(&right).for_each(|(&l, &r)| pairs[l] = Some(r));
    Some(pairs)
}

impl Nest {
    /// Takes over the loops of another nest: loop `l` is what was loop `pairs[l]`, or a new one.
    fn follow(&mut self, pairs: &[Option<usize>], loops: &[usize]) {
        let first_new = self.loops.len();
        let new: Vec<usize> =
            (0..pairs.len()).filter(|&l| pairs[l].is_none()).map(|l| loops[l]).collect();
        self.append_loops(&new);
        let mut next = first_new..;
        let order: Vec<usize> =
            pairs.iter().map(|p| p.or_else(|| next.next()).unwrap_or_default()).collect();
        self.select_loops(&order, loops.to_vec());
    }
}
