//! Loop nests whose rows are longer than a tile: each reduction over columns becomes a nest of its
//! own that leaves its results in memory, and the last nest reads them.

use ferrata_compiler::kernel::{Access, Instruction, Loop, Register, Store};
use ferrata_compiler::row_major;

/// Memory that a nest leaves for later ones: its operand and its elements' dtype.
pub(crate) type Allocate<'a> = dyn FnMut(usize) -> usize + 'a;

/// The nests, in order, none of which reduces over columns. `allocate` gives the operand of a new
/// piece of memory of so many bytes.
pub(crate) fn split(nest: &Loop, allocate: &mut Allocate<'_>) -> Vec<Loop> {
    let levels = levels(nest);
    let last = levels.iter().copied().max().unwrap_or(0);
    let mut nest = nest.clone();
    let mut nests = Vec::new();
    for level in 1..=last {
        let ready: Vec<Register> = (0..nest.body.len())
            .filter(|&r| levels[r] == level)
            .filter(|&r| matches!(nest.body[r], Instruction::ReduceColumns { .. }))
            .collect();
        let counts: usize = nest.rows.iter().product();
        let mut strides = row_major(&nest.rows);
        strides.extend(nest.columns.iter().map(|_| 0));
        let mut stage = Loop {
            rows: [&nest.rows[..], &nest.columns].concat(),
            columns: Vec::new(),
            stores: Vec::new(),
            ..nest.clone()
        };
        for r in ready {
            let Instruction::ReduceColumns { kind, dtype, arg } = nest.body[r] else { continue };
            let operand = allocate(counts * dtype.size());
            let access = Access { operand, dtype, offset: 0, strides: strides.clone() };
            stage.stores.push(Store { register: arg, access: access.clone(), combine: Some(kind) });
            nest.loads.push(access);
            nest.body[r] = Instruction::Load(nest.loads.len() - 1);
        }
        nests.push(needed(&stage));
    }
    nests.push(needed(&nest));
    nests
}

/// After how many reductions over columns each register is known.
fn levels(nest: &Loop) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::new();
    for instruction in &nest.body {
        let before = instruction.args().iter().map(|&a| levels[a]).max().unwrap_or(0);
        let reduces = matches!(instruction, Instruction::ReduceColumns { .. });
        levels.push(before + usize::from(reduces));
    }
    levels
}

/// The nest without loads and instructions that no store needs.
pub(crate) fn needed(nest: &Loop) -> Loop {
    let mut used = vec![false; nest.body.len()];
    nest.stores.iter().for_each(|s| used[s.register] = true);
    for (r, instruction) in nest.body.iter().enumerate().rev() {
        if used[r] {
            instruction.args().iter().for_each(|&a| used[a] = true);
        }
    }
    let mut result = Loop { loads: Vec::new(), body: Vec::new(), ..nest.clone() };
    let mut renamed = vec![0; nest.body.len()];
    for (r, instruction) in nest.body.iter().enumerate().filter(|(r, _)| used[*r]) {
        renamed[r] = result.body.len();
        let mut instruction = instruction.clone();
        instruction.args_mut().iter_mut().for_each(|a| *a = renamed[*a]);
        if let Instruction::Load(i) = &mut instruction {
            result.loads.push(nest.loads[*i].clone());
            *i = result.loads.len() - 1;
        }
        result.body.push(instruction);
    }
    result.stores.iter_mut().for_each(|s| s.register = renamed[s.register]);
    result
}
