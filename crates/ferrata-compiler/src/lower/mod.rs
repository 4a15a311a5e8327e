//! Groups of operations become kernels over the buffers of a fragment.

mod containers;
mod contract;
mod instructions;
mod loops;

use crate::body::{Body, Id, Kind, Op, Operand, Scalarly};
use crate::fragment::{Fragment, FragmentStep, Library, Source};
use crate::fuse::Group;
use crate::kernel::{Access, Instruction, Kernel, Loop, Store, View};
use crate::nest::Nest;
use crate::strided::{Map, Strided, coalesce};
use containers::{Container, Part, no_place, parts_of_containers};
use ferrata_ir::{DType, Error, Literal, Origin, Result, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// Turns the groups of a body into the steps of a fragment. Kernels and constants go into the
/// library, which also knows the fragments of called functions.
///
/// # Errors
/// Names the node that has no kernel.
pub fn lower(body: &Body, groups: &[Group], library: &mut Library) -> Result<Fragment> {
    let mut sources: Vec<Option<Source>> = vec![None; body.values.len()];
    (0..body.parameters).for_each(|p| sources[p] = Some(Source::Parameter(p)));
    let mut lowering = Lowering {
        body,
        library,
        parts: parts_of_containers(body, groups),
        sources,
        fragment: Fragment {
            parameters: body.values[..body.parameters].iter().map(|v| v.ty.clone()).collect(),
            ..Fragment::default()
        },
    };
    // Simplification has made constants of all that has no elements; nothing has to be run.
    for (id, value) in body.values.iter().enumerate().skip(body.parameters) {
        if value.ty.elements() == 0 {
            lowering.allocate(id);
        }
    }
    for group in groups {
        lowering.group(group)?;
    }
    for &r in &body.results {
        let source = lowering.source(r)?;
        lowering.fragment.results.push(source);
    }
    Ok(lowering.fragment)
}

struct Lowering<'a> {
    body: &'a Body,
    library: &'a mut Library,
    /// Values that are made as parts of another one.
    parts: HashMap<Id, Part>,
    /// Where each value lies, once it is made.
    sources: Vec<Option<Source>>,
    fragment: Fragment,
}

/// The operands of one kernel, by number.
#[derive(Debug, Default)]
struct Operands {
    loaded: Vec<Source>,
    /// Stored operands get the numbers behind the loaded ones.
    all: Vec<Source>,
}

impl Operands {
    fn load(&mut self, source: Source) -> usize {
        if let Some(i) = self.loaded.iter().position(|s| *s == source) {
            return i;
        }
        self.loaded.push(source);
        self.all.push(source);
        self.all.len() - 1
    }

    fn store(&mut self, source: Source) -> usize {
        self.all.push(source);
        self.all.len() - 1
    }
}

impl Lowering<'_> {
    fn group(&mut self, group: &Group) -> Result<()> {
        match group {
            Group::Nest(nest) => self.nest(nest),
            Group::Product { op, nest } => self.product(*op, nest),
            Group::Single(op) => self.single(*op),
        }
    }

    fn source(&self, id: Id) -> Result<Source> {
        self.sources[id].ok_or_else(|| Error::new("a value is used before it is stored"))
    }

    /// A new buffer for a value, or the buffer of the value that it is a part of.
    fn allocate(&mut self, id: Id) -> Source {
        if let Some(part) = self.parts.get(&id) {
            let whole = part.whole;
            let source = self.sources[whole].unwrap_or_else(|| self.allocate(whole));
            self.sources[id] = Some(source);
            return source;
        }
        let source = self.fragment.local(self.body.values[id].ty.bytes());
        self.sources[id] = Some(source);
        source
    }

    fn run(&mut self, kernel: Kernel, operands: Operands, origin: &Origin) {
        let kernel = self.library.kernel(kernel);
        let origin = origin.clone();
        self.fragment.steps.push(FragmentStep::Run { kernel, operands: operands.all, origin });
    }

    fn nest(&mut self, nest: &Nest) -> Result<()> {
        let mut nest = nest.clone();
        self.place_parts(&mut nest, None)?;
        let nest = &nest;
        let lowered = loops::lower(self.body, nest);
        let mut operands = Operands::default();
        let mut kernel = lowered.kernel;
        for (load, &id) in kernel.loads.iter_mut().zip(&lowered.loads) {
            load.operand = operands.load(self.source(id)?);
        }
        for (store, output) in kernel.stores.iter_mut().zip(&nest.outputs) {
            store.access.operand = operands.store(self.allocate(output.value));
        }
        let origin = self.origin(nest);
        self.run(Kernel::Loop(kernel), operands, &origin);
        Ok(())
    }

    /// The origin of the operation whose result the nest stores first.
    fn origin(&self, nest: &Nest) -> Origin {
        let first = nest.outputs.first().and_then(|o| self.body.maker(o.value));
        first.map(|op| op.origin.clone()).unwrap_or_default()
    }

    /// Where a value is in memory, and whether all its elements are the first one there.
    fn memory(&mut self, id: Id) -> Result<(Source, bool)> {
        if let Some(Kind::Map(Scalarly::Constant(value))) = self.body.maker(id).map(|op| &op.kind) {
            let ty = Type::new(self.body.dtype(id), [1]);
            return Ok((self.library.constant(Arc::new(Literal::splat(ty, *value))), true));
        }
        Ok((self.source(id)?, false))
    }

    fn view(&mut self, operand: &Operand, operands: &mut Operands) -> Result<View> {
        let (source, splat) = self.memory(operand.value)?;
        let mut window = self.placed(operand.value, &operand.window)?;
        if splat {
            window.offset = 0;
            window.strides.fill(0);
        }
        let dtype = self.body.dtype(operand.value);
        Ok(view(operands.load(source), dtype, window))
    }

    fn single(&mut self, at: usize) -> Result<()> {
        let op = &self.body.ops[at];
        if let Some(container) = Container::of(self.body, op) {
            return self.container(op, &container);
        }
        let mut operands = Operands::default();
        match &op.kind {
            Kind::Dense(literal) => {
                self.sources[op.outputs[0]] = Some(self.library.constant(literal.clone()));
                return Ok(());
            }
            Kind::Call(_) | Kind::Scan(_) | Kind::Cond(_) => return self.call(op),
            _ => {}
        }
        let inputs =
            op.inputs.iter().map(|x| self.view(x, &mut operands)).collect::<Result<Vec<_>>>()?;
        let outputs = op
            .outputs
            .iter()
            .map(|&o| {
                let at = operands.store(self.allocate(o));
                Ok(view(at, self.body.dtype(o), self.written(o)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let kernel = match &op.kind {
            Kind::Composite { composite, .. } => {
                Kernel::Composite { composite: composite.clone(), inputs, outputs }
            }
            Kind::Primitive(p) => Kernel::Primitive { op: p.clone(), inputs, outputs },
            _ => return Err(Error::new("an operation without a kernel")),
        };
        self.run(kernel, operands, &op.origin);
        Ok(())
    }

    /// The window through which an operation on memory writes its result.
    fn written(&self, id: Id) -> Result<Strided> {
        let whole = || Strided::whole(&self.body.values[id].ty.shape);
        let window = self.body.layout(id).cloned().unwrap_or_else(whole);
        match self.parts.get(&id) {
            Some(part) => part.window.compose(&window).ok_or_else(no_place),
            None => Ok(window),
        }
    }

    /// A step that runs other fragments.
    fn call(&mut self, op: &Op) -> Result<()> {
        let callees = op.kind.callees();
        let fragments =
            callees.into_iter().map(|f| self.library.fragment_of(f)).collect::<Result<Vec<_>>>()?;
        let mut arguments =
            op.inputs.iter().map(|x| self.source(x.value)).collect::<Result<Vec<_>>>()?;
        // How many results lie in buffers that the callee names; the others get buffers here.
        let named = match &op.kind {
            Kind::Call(_) => op.outputs.len(),
            Kind::Scan(scan) => scan.carries,
            _ => 0,
        };
        let results = op
            .outputs
            .iter()
            .enumerate()
            .map(|(i, &o)| {
                if i < named {
                    return self.allocate_alias(o);
                }
                self.allocate(o);
                self.fragment.locals.len() - 1
            })
            .collect();
        let origin = op.origin.clone();
        self.fragment.steps.push(match (&op.kind, fragments.as_slice()) {
            (Kind::Scan(scan), &[fragment]) => {
                let scan = scan.clone();
                FragmentStep::Repeat { fragment, scan, arguments, results, origin }
            }
            (Kind::Cond(_), &[yes, no]) => {
                let condition = arguments.remove(0);
                let fragments = [yes, no];
                FragmentStep::Branch { condition, fragments, arguments, results, origin }
            }
            (_, &[fragment]) => FragmentStep::Call { fragment, arguments, results, origin },
            _ => return Err(Error::new("a call of nothing")),
        });
        Ok(())
    }

    /// A name for a buffer that a called fragment makes.
    fn allocate_alias(&mut self, id: Id) -> usize {
        self.fragment.locals.push(None);
        let local = self.fragment.locals.len() - 1;
        self.sources[id] = Some(Source::Local(local));
        local
    }
}

fn view(operand: usize, dtype: DType, window: Strided) -> View {
    View {
        operand,
        dtype,
        shape: window.shape,
        offset: window.offset as usize,
        strides: window.strides,
    }
}

/// An access without its operand, which the caller fills in.
fn access(body: &Body, id: Id, map: Map) -> Access {
    Access { operand: 0, dtype: body.dtype(id), offset: map.offset as usize, strides: map.strides }
}

/// A loop that copies elements; strides, offsets and operands are those of the target, then those
/// of the origin.
fn copy_loop(
    shape: &[usize],
    strides: [Vec<isize>; 2],
    offsets: [usize; 2],
    operands: [usize; 2],
    dtype: DType,
) -> Loop {
    let (mut columns, mut strides) = (shape.to_vec(), strides);
    coalesce(&mut columns, &mut strides, |_, _| true);
    let rows = columns.drain(..columns.len().saturating_sub(1)).collect();
    let [to, from] = strides;
    let at =
        |i: usize, strides| Access { operand: operands[i], dtype, offset: offsets[i], strides };
    Loop {
        rows,
        columns,
        loads: vec![at(1, from)],
        body: vec![Instruction::Load(0)],
        stores: vec![Store { register: 0, access: at(0, to), combine: None }],
    }
}
