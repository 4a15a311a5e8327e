//! Plans and kernels as text, for people.

use crate::cost::operations;
use crate::kernel::{Access, Contract, Instruction, Kernel, Loop, Store, View};
use crate::plan::{Place, Plan, Step};
use ferrata_ir::DType;
use std::fmt::{self, Display, Formatter};

/// A list with separators.
struct List<'a, T>(&'a [T], &'a str);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, x) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(self.1)?;
            }
            write!(f, "{x}")?;
        }
        Ok(())
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "${}:{}", self.operand, self.dtype)?;
        if self.offset > 0 {
            write!(f, "+{}", self.offset)?;
        }
        write!(f, "[{}]", List(&self.strides, ","))
    }
}

impl Display for View {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "${}:{}[{}]", self.operand, self.dtype, List(&self.shape, ","))?;
        if self.offset > 0 {
            write!(f, "+{}", self.offset)?;
        }
        write!(f, "({})", List(&self.strides, ","))
    }
}

fn instruction(f: &mut Formatter<'_>, x: &Instruction, loads: &[Access]) -> fmt::Result {
    match x {
        Instruction::Load(i) => write!(f, "load {}", loads[*i]),
        Instruction::Product => write!(f, "product"),
        Instruction::Constant { dtype, value } => write!(f, "{dtype} {value}"),
        Instruction::Index { dim, dtype } => write!(f, "{dtype} index {dim}"),
        Instruction::Apply { op, args, .. } => {
            write!(f, "{}", format!("{op:?}").to_lowercase())?;
            args.iter().try_for_each(|a| write!(f, " %{a}"))
        }
        Instruction::Cast { to, arg, .. } => write!(f, "{to} of %{arg}"),
        Instruction::ReduceColumns { kind, arg, .. } => {
            write!(f, "{} of columns %{arg}", kind.word())
        }
    }
}

fn body(f: &mut Formatter<'_>, body: &[Instruction], loads: &[Access]) -> fmt::Result {
    for (i, x) in body.iter().enumerate() {
        write!(f, "    %{i} = ")?;
        instruction(f, x, loads)?;
        writeln!(f)?;
    }
    Ok(())
}

impl Display for Loop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "loop rows [{}] columns [{}]",
            List(&self.rows, ","),
            List(&self.columns, ",")
        )?;
        body(f, &self.body, &self.loads)?;
        stores(f, &self.stores)
    }
}

fn stores(f: &mut Formatter<'_>, stores: &[Store]) -> fmt::Result {
    for store in stores {
        let how = store.combine.map_or(String::new(), |k| format!(" {} of rows", k.word()));
        writeln!(f, "    {} = %{}{how}", store.access, store.register)?;
    }
    Ok(())
}

impl Display for Contract {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [batch, m, n, k] = [&self.batch, &self.m, &self.n, &self.k].map(|l| List(l, ","));
        writeln!(f, "contract batch [{batch}] m [{m}] n [{n}] k [{k}]")?;
        writeln!(f, "    {} = {} {}", self.out, self.left, self.right)?;
        match &self.epilogue {
            Some(epilogue) => {
                body(f, &epilogue.body, &epilogue.loads)?;
                stores(f, &epilogue.stores)
            }
            None => Ok(()),
        }
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, inputs, outputs) = match self {
            Kernel::Loop(l) => return write!(f, "{l}"),
            Kernel::Contract(c) => return write!(f, "{c}"),
            Kernel::Composite { composite, inputs, outputs } => (composite.name, inputs, outputs),
            Kernel::Primitive { op, inputs, outputs } => (op.name(), inputs, outputs),
        };
        writeln!(f, "{name}({}) -> {}", List(inputs, ", "), List(outputs, ", "))
    }
}

impl Kernel {
    /// What kind of kernel it is: `contract`, `loop`, `composite` or `primitive`.
    pub fn class(&self) -> &'static str {
        match self {
            Kernel::Loop(_) => "loop",
            Kernel::Contract(_) => "contract",
            Kernel::Composite { .. } => "composite",
            Kernel::Primitive { .. } => "primitive",
        }
    }

    /// One line: class, sizes and dtypes.
    pub fn summary(&self) -> String {
        format!("{} {}", self.class(), self.shape())
    }

    /// Sizes and dtypes, and for composites and primitives the name.
    pub fn shape(&self) -> String {
        let named = |name: &str, inputs: &[View]| {
            let shown = |v: &View| format!("{}[{}]", v.dtype, List(&v.shape, ","));
            format!("{name} {}", List(&inputs.iter().map(shown).collect::<Vec<_>>(), " "))
        };
        match self {
            Kernel::Loop(l) => {
                let dtypes = |mut all: Vec<DType>| {
                    all.dedup();
                    List(&all, ",").to_string()
                };
                format!(
                    "[{}]x[{}] {}->{} {} operations",
                    List(&l.rows, ","),
                    List(&l.columns, ","),
                    dtypes(l.loads.iter().map(|a| a.dtype).collect()),
                    dtypes(l.stores.iter().map(|s| s.access.dtype).collect()),
                    operations(&l.body)
                )
            }
            Kernel::Contract(c) => {
                let batch = match c.batch.is_empty() {
                    true => String::new(),
                    false => format!("[{}]x", List(&c.batch, ",")),
                };
                let behind = c.epilogue.as_ref().map(|e| operations(&e.body)).unwrap_or_default();
                let behind = match behind {
                    0 => String::new(),
                    n => format!(" +{n} operations"),
                };
                let (left, out) = (c.left.dtype, c.out.dtype);
                let [m, n, k] = [&c.m, &c.n, &c.k].map(|l| l.iter().product::<usize>());
                format!("{batch}{m}x{n}x{k} {left}->{out}{behind}")
            }
            Kernel::Composite { composite, inputs, .. } => named(composite.name, inputs),
            Kernel::Primitive { op, inputs, .. } => named(op.name(), inputs),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, offset) = match self {
            Place::Input { index, offset } => (format!("input {index}"), *offset),
            Place::Result { index, offset } => (format!("result {index}"), *offset),
            Place::Arena { offset } => return write!(f, "arena+{offset}"),
            Place::Constant { index } => (format!("constant {index}"), 0),
        };
        if offset > 0 { write!(f, "{name}+{offset}") } else { write!(f, "{name}") }
    }
}

/// Writes a schedule, indented by `depth` steps.
fn steps(f: &mut Formatter<'_>, all: &[Step], depth: usize) -> fmt::Result {
    let indent = 2 * depth;
    for step in all {
        match step {
            Step::Run { kernel, operands, origin } => {
                writeln!(f, "{:indent$}k{kernel}({}) {}", "", List(operands, ", "), origin.scope)?;
            }
            Step::Copy { from, to, bytes } => {
                writeln!(f, "{:indent$}copy {from} -> {to}, {bytes} bytes", "")?;
            }
            Step::Repeat { length, reverse, load, body, store } => {
                let back = if *reverse { " backwards" } else { "" };
                writeln!(f, "{:indent$}repeat {length}{back}", "")?;
                for (from, to, bytes) in load {
                    writeln!(f, "{:indent$}  slice {from} -> {to}, {bytes} bytes", "")?;
                }
                steps(f, body, depth + 1)?;
                for (from, to, bytes) in store {
                    writeln!(f, "{:indent$}  {from} -> slice {to}, {bytes} bytes", "")?;
                }
            }
            Step::Branch { condition, branches: [yes, no] } => {
                writeln!(f, "{:indent$}if {condition}", "")?;
                steps(f, yes, depth + 1)?;
                writeln!(f, "{:indent$}else", "")?;
                steps(f, no, depth + 1)?;
            }
        }
    }
    Ok(())
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, kernel) in self.kernels.iter().enumerate() {
            write!(f, "k{i} = {kernel}")?;
        }
        steps(f, &self.steps, 0)?;
        let kept: usize = self.inputs.iter().map(|t| t.bytes()).sum();
        let own = self.results.iter().zip(&self.takes).filter(|(_, t)| t.is_none());
        let results: usize = own.map(|(ty, _)| ty.bytes()).sum();
        writeln!(f, "{kept} bytes of inputs, {results} of results, {} of arena", self.arena)
    }
}
