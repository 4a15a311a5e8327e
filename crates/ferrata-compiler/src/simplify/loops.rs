//! Loops: what a turn hands on as it was is no state.

use super::Simplifier;
use ferrata_ir::primitive::Scan;
use ferrata_ir::{Builder, Value};
use std::sync::Arc;

impl Simplifier {
    /// The loop with every carry that no turn changes among the constants, and its operands and
    /// results; `None` if there is no such carry.
    pub(super) fn without_still_carries(
        &mut self,
        scan: &Scan,
        args: &[Value],
    ) -> Option<Vec<Value>> {
        let old = &scan.body;
        let (_, carried, _) = scan.parts(old.parameters());
        let still: Vec<bool> = carried.iter().zip(old.results()).map(|(p, r)| p == r).collect();
        if !still.contains(&true) {
            return None;
        }
        let among = |i: usize| i.checked_sub(scan.constants).and_then(|i| still.get(i));
        let (first, last): (Vec<usize>, Vec<usize>) =
            (0..args.len()).partition(|&i| i < scan.constants || among(i) == Some(&true));
        let order = [first.as_slice(), &last].concat();
        let moves = |i: &usize| still.get(*i) != Some(&true);

        let mut b = Builder::new(old.name.clone());
        let mut inner = old.parameters().to_vec();
        for &i in &order {
            inner[i] = b.parameter(old.ty(old.parameters()[i]).clone());
        }
        let all = b.inline(old, &inner);
        let kept: Vec<Value> = (0..all.len()).filter(moves).map(|i| all[i]).collect();
        let body = Arc::new(b.finish(&kept).ok()?);
        let carries = last.len() - (args.len() - scan.constants - scan.carries);
        let new = Scan { body, constants: first.len(), carries, ..scan.clone() };

        let reordered: Vec<Value> = order.iter().map(|&i| args[i]).collect();
        let mut made = self.push(new.into(), &reordered).into_iter();
        let result = |i| if moves(&i) { made.next() } else { Some(args[scan.constants + i]) };
        (0..all.len()).map(result).collect()
    }
}
