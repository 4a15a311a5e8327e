//! The text that the compiler leaves for its last step, read into operations.

use super::affine::Map;
use ferrata_ir::{Error, Result};
use std::collections::HashMap;

/// A compiled program: one function and the names that it uses.
#[derive(Debug)]
pub(crate) struct Module {
    /// Types of the parameters.
    pub parameters: Vec<(Slot, String)>,
    /// The body.
    pub body: Vec<Statement>,
    /// How many values there are.
    pub slots: usize,
}

/// Which value.
pub(crate) type Slot = usize;

/// A number in the text or a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operand {
    Number(i64),
    Value(Slot),
}

/// An operation and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub line: usize,
    pub operation: Operation,
}

/// The memories of a core, and global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Memory that all cores share.
    Global,
    /// What vector cores compute in.
    Unified,
    /// Where matrices are staged.
    L1,
    /// Left operands of products.
    L0A,
    /// Right operands of products.
    L0B,
    /// Sums of products.
    L0C,
}

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    BF16,
    Int(u32),
}

impl Kind {
    /// The type of this name.
    pub fn of(name: &str) -> Option<Kind> {
        Some(match name {
            "f32" => Kind::F32,
            "f16" => Kind::F16,
            "bf16" => Kind::BF16,
            "index" => Kind::Int(64),
            _ => Kind::Int(name.strip_prefix('i')?.parse().ok()?),
        })
    }

    /// Bits of an element in memory; truth values have one.
    pub fn bits(self) -> usize {
        match self {
            Kind::F32 => 32,
            Kind::F16 | Kind::BF16 => 16,
            Kind::Int(n) => n as usize,
        }
    }

    pub fn is_float(self) -> bool {
        !matches!(self, Kind::Int(_))
    }
}

/// The type of an array in some memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub shape: Vec<Option<usize>>,
    pub strides: Option<Vec<Option<isize>>>,
    pub kind: Kind,
    pub space: Space,
}

/// Parts of a core that run their instructions in order, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pipe {
    /// Control flow and addresses.
    Scalar,
    /// Elementwise work and reductions.
    Vector,
    /// Products.
    Cube,
    /// Moves from L1 to the operands of products.
    Mte1,
    /// Moves from global memory.
    Mte2,
    /// Moves from the unified buffer to global memory.
    Mte3,
    /// Moves of products.
    Fix,
    /// All of them; only barriers name it.
    All,
}

impl Pipe {
    /// Every pipe.
    pub const EACH: [Pipe; 7] =
        [Pipe::Scalar, Pipe::Vector, Pipe::Cube, Pipe::Mte1, Pipe::Mte2, Pipe::Mte3, Pipe::Fix];

    fn of(name: &str) -> Option<Pipe> {
        Some(match name {
            "PIPE_S" => Pipe::Scalar,
            "PIPE_V" => Pipe::Vector,
            "PIPE_M" => Pipe::Cube,
            "PIPE_MTE1" => Pipe::Mte1,
            "PIPE_MTE2" => Pipe::Mte2,
            "PIPE_MTE3" => Pipe::Mte3,
            "PIPE_FIX" => Pipe::Fix,
            "PIPE_ALL" => Pipe::All,
            _ => return None,
        })
    }
}

/// What a statement does.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Float {
        result: Slot,
        value: f64,
    },
    Integer {
        result: Slot,
        value: i64,
    },
    /// Arithmetic of the scalar unit: the name behind `arith.`, with the predicate of a comparison.
    Arithmetic {
        result: Slot,
        name: String,
        args: Vec<Slot>,
        from: Option<Kind>,
        to: Option<Kind>,
    },
    Affine {
        result: Slot,
        map: usize,
        args: Vec<Slot>,
        largest: bool,
    },
    Pointer {
        result: Slot,
        address: Slot,
        array: Array,
    },
    Reinterpret {
        result: Slot,
        source: Slot,
        offset: Operand,
        sizes: Vec<Operand>,
        strides: Vec<Operand>,
    },
    Subview {
        result: Slot,
        source: Slot,
        offsets: Vec<Operand>,
        sizes: Vec<Operand>,
        strides: Vec<Operand>,
        to: Array,
    },
    Same {
        result: Slot,
        source: Slot,
    },
    Bitcast {
        result: Slot,
        source: Slot,
        kind: Kind,
    },
    Collapse {
        result: Slot,
        source: Slot,
        groups: Vec<Vec<usize>>,
    },
    Expand {
        result: Slot,
        source: Slot,
        groups: Vec<Vec<usize>>,
        shape: Vec<Operand>,
    },
    Load {
        result: Slot,
        source: Slot,
        indices: Vec<Slot>,
    },
    Store {
        value: Slot,
        target: Slot,
        indices: Vec<Slot>,
    },
    For {
        index: Slot,
        bounds: [Slot; 3],
        carried: Vec<(Slot, Slot)>,
        results: Vec<Slot>,
        body: Vec<Statement>,
    },
    If {
        condition: Slot,
        results: Vec<Slot>,
        branches: [Vec<Statement>; 2],
    },
    Yield {
        values: Vec<Slot>,
    },
    Set {
        from: Pipe,
        to: Pipe,
        event: Operand,
    },
    Wait {
        from: Pipe,
        to: Pipe,
        event: Operand,
    },
    Barrier {
        pipe: Pipe,
    },
    Block {
        result: Slot,
    },
    Call {
        name: String,
        args: Vec<Slot>,
    },
    Nothing,
}

/// Reads a module.
///
/// # Errors
/// Names the line and the operation that is not known.
pub(crate) fn parse(text: &str) -> Result<(Module, Vec<Map>)> {
    let mut parser = Parser::default();
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).peekable();
    let mut module = None;
    while let Some((number, line)) = lines.next() {
        if let Some(rest) = line.strip_prefix('#') {
            parser.map(rest).map_err(|e| at(number, line, e))?;
        } else if is_entry(line) {
            if module.is_some() {
                return Err(at(number, line, Error::new("a second function")));
            }
            let parameters = parser.parameters(line).map_err(|e| at(number, line, e))?;
            let (body, _) = parser.block(&mut lines)?;
            module = Some((parameters, body));
        }
    }
    let (parameters, body) = module.ok_or("the module has no function for the device")?;
    Ok((Module { parameters, body, slots: parser.slots.len() }, parser.list))
}

/// Whether a line begins the function that cores run.
fn is_entry(line: &str) -> bool {
    line.starts_with("func.func @") && line.contains("#hacc.function_kind<DEVICE>")
}

/// What a compiled program is given when it is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The address that cores synchronise at: 8 bytes.
    Synchronisation,
    /// A pointer to global memory: 8 bytes.
    Pointer,
    /// A size of the grid: 4 bytes.
    Size,
}

/// The parameters of a compiled program, in their order; of the rest of the text nothing is read.
///
/// # Errors
/// Names a parameter of another kind.
pub fn parameters(text: &str) -> Result<Vec<Parameter>> {
    let entry = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let (number, line) = entry
        .into_iter()
        .find(|(_, line)| is_entry(line))
        .ok_or("the module has no function for the device")?;
    let listed = Parser::default().parameters(line).map_err(|e| at(number, line, e))?;
    let kind = |(_, ty): (Slot, String)| match &ty[..] {
        "i64" => Ok(Parameter::Synchronisation),
        "i32" => Ok(Parameter::Size),
        ty if ty.starts_with("memref<") => Ok(Parameter::Pointer),
        ty => Err(at(number, line, Error::new(format!("a parameter of type {ty}")))),
    };
    listed.into_iter().map(kind).collect()
}

/// The error with the line that it is about.
pub(crate) fn at(number: usize, line: &str, error: Error) -> Error {
    let line: String = line.chars().take(160).collect();
    Error::new(format!("{} in line {number} of the compiled kernel: {line}", error.message()))
}

#[derive(Default)]
struct Parser {
    slots: HashMap<String, Slot>,
    maps: HashMap<String, usize>,
    list: Vec<Map>,
}

/// The part of a text between two marks.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Result<&'a str> {
    let from =
        text.find(open).ok_or_else(|| Error::new(format!("`{open}` is missing")))? + open.len();
    let end =
        text[from..].find(close).ok_or_else(|| Error::new(format!("`{close}` is missing")))?;
    Ok(&text[from..from + end])
}

/// Parts of a list, split where no bracket is open.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            '>' if text[..i].ends_with('-') => {}
            '>' | ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[from..i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    if !text[from..].trim().is_empty() {
        parts.push(text[from..].trim());
    }
    parts
}

/// The text behind the bracket that closes the first one.
fn behind(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if text[..i].ends_with('-') => {}
            ')' | ']' | '}' | '>' => {
                depth -= 1;
                if depth == 0 {
                    return (&text[1..i], &text[i + 1..]);
                }
            }
            _ => {}
        }
    }
    (text, "")
}

/// Reads the type of an array.
pub(crate) fn array(text: &str) -> Result<Array> {
    let text = text.trim();
    let inner = text.strip_prefix("memref<").and_then(|t| t.strip_suffix('>'));
    let parts = split(inner.ok_or_else(|| Error::new(format!("`{text}` is no memref")))?);
    let mut dims: Vec<&str> = parts.first().copied().unwrap_or("").split('x').collect();
    let name = dims.pop().unwrap_or("");
    let kind =
        Kind::of(name).ok_or_else(|| Error::new(format!("unknown element type `{name}`")))?;
    let shape = dims.iter().map(|d| d.parse().ok()).collect();
    let layout = parts.iter().find_map(|p| p.strip_prefix("strided<"));
    let strides = match layout {
        Some(layout) => {
            Some(split(between(layout, "[", "]")?).iter().map(|s| s.parse().ok()).collect())
        }
        None => None,
    };
    let space = parts.iter().find_map(|p| p.strip_prefix("#hivm.address_space<"));
    let space = match space.map(|s| s.trim_end_matches('>')) {
        None | Some("gm") => Space::Global,
        Some("ub") => Space::Unified,
        Some("cbuf") => Space::L1,
        Some("cc") => Space::L0C,
        Some(other) => return Err(Error::new(format!("unknown memory `{other}`"))),
    };
    Ok(Array { shape, strides, kind, space })
}

type Lines<'a, I> = std::iter::Peekable<I>;

impl Parser {
    fn slot(&mut self, name: &str) -> Slot {
        let next = self.slots.len();
        *self.slots.entry(name.to_owned()).or_insert(next)
    }

    fn slots(&mut self, list: &str) -> Vec<Slot> {
        split(list).into_iter().map(|n| self.slot(n)).collect()
    }

    /// `map1 = affine_map<…>`
    fn map(&mut self, line: &str) -> Result<()> {
        let (name, rest) = line.split_once(" = ").ok_or("`=` is missing")?;
        if let Some(map) = rest.strip_prefix("affine_map<") {
            self.maps.insert(name.trim().to_owned(), self.list.len());
            self.list.push(Map::parse(map.trim_end_matches('>'))?);
        }
        Ok(())
    }

    fn parameters(&mut self, line: &str) -> Result<Vec<(Slot, String)>> {
        let open = line.find('(').ok_or("`(` is missing")?;
        let (list, _) = behind(&line[open..]);
        split(list)
            .into_iter()
            .map(|p| {
                let (name, ty) = p.split_once(':').ok_or("`:` is missing")?;
                let ty = ty.split(" {").next().unwrap_or(ty);
                Ok((self.slot(name.trim()), ty.trim().to_owned()))
            })
            .collect()
    }

    /// The statements up to the end of a region, and the line that ends it.
    fn block<'a, I: Iterator<Item = (usize, &'a str)>>(
        &mut self,
        lines: &mut Lines<'a, I>,
    ) -> Result<(Vec<Statement>, &'a str)> {
        let mut statements = Vec::new();
        while let Some((number, line)) = lines.next() {
            if line.starts_with('}') {
                return Ok((statements, line));
            }
            let operation = self.statement(line, lines).map_err(|e| at(number, line, e));
            statements.push(Statement { line: number, operation: operation? });
        }
        Err(Error::new("a region of the compiled kernel does not end"))
    }

    fn statement<'a, I: Iterator<Item = (usize, &'a str)>>(
        &mut self,
        line: &str,
        lines: &mut Lines<'a, I>,
    ) -> Result<Operation> {
        let (results, rest) = match line.split_once(" = ") {
            Some((results, rest)) if line.starts_with('%') => (results, rest),
            _ => ("", line),
        };
        let results = self.results(results);
        let end = rest.find([' ', '[', '(']).unwrap_or(rest.len());
        let (name, rest) = (&rest[..end], rest[end..].trim());
        let result = || results.first().copied().ok_or_else(|| Error::new("no result"));
        Ok(match name {
            "arith.constant" => return constant(result()?, rest),
            "scf.for" => return self.for_loop(rest, results, lines),
            "scf.if" => return self.if_else(rest, results, lines),
            "scf.yield" => {
                let values = rest.split(':').next().unwrap_or("");
                Operation::Yield { values: self.slots(values) }
            }
            "return" | "hivm.hir.set_mask_norm" | "hivm.hir.set_ctrl" => Operation::Nothing,
            "affine.apply" | "affine.min" | "affine.max" => {
                let (map, args) = rest.split_once(['(', '[']).unwrap_or((rest, ""));
                let map = map.trim().trim_start_matches('#');
                let map = *self.maps.get(map).ok_or_else(|| Error::new(format!("no map {map}")))?;
                let args = args.replace([')', ']'], ",").replace(['(', '['], "");
                let args = self.slots(&clean(&args));
                Operation::Affine { result: result()?, map, args, largest: name == "affine.max" }
            }
            "hivm.hir.pointer_cast" => {
                let array = array(rest.split_once(" : ").ok_or("no type")?.1)?;
                let address = between(rest, "(", ")")?;
                Operation::Pointer { result: result()?, address: self.slot(address), array }
            }
            "hivm.hir.get_block_idx" => Operation::Block { result: result()? },
            "hivm.hir.set_flag" | "hivm.hir.wait_flag" => {
                let parts = split(between(rest, "[", "]")?);
                let [from, to, event] = parts[..] else { return Err("three parts".into()) };
                let pipe = |p: &str| {
                    let p = p.trim_matches(['<', '>']);
                    Pipe::of(p).ok_or_else(|| Error::new(format!("unknown pipe {p}")))
                };
                let event = match event.strip_prefix("<EVENT_ID") {
                    Some(n) => Operand::Number(n.trim_end_matches('>').parse().unwrap_or(-1)),
                    None => Operand::Value(self.slot(event)),
                };
                let (from, to) = (pipe(from)?, pipe(to)?);
                if name == "hivm.hir.set_flag" {
                    Operation::Set { from, to, event }
                } else {
                    Operation::Wait { from, to, event }
                }
            }
            "hivm.hir.pipe_barrier" => {
                let pipe = between(rest, "<", ">")?;
                let pipe =
                    Pipe::of(pipe).ok_or_else(|| Error::new(format!("unknown pipe {pipe}")))?;
                Operation::Barrier { pipe }
            }
            "hivm.hir.bitcast" => {
                let source = rest.split(' ').next().unwrap_or("");
                let to = array(rest.split_once("-> ").ok_or("no type")?.1)?;
                Operation::Bitcast { result: result()?, source: self.slot(source), kind: to.kind }
            }
            "call" | "func.call" => {
                let name = between(rest, "@", "(")?.to_owned();
                let open = rest.find('(').unwrap_or(0);
                Operation::Call { name, args: self.slots(behind(&rest[open..]).0) }
            }
            _ if name.starts_with("memref.") => return self.view(name, rest, &results),
            "math.sqrt" | "math.absf" => return self.arithmetic(&name[5..], rest, result()?),
            _ if name.starts_with("arith.") => return self.arithmetic(&name[6..], rest, result()?),
            _ => return Err(Error::new(format!("unknown operation `{name}`"))),
        })
    }

    /// `%a`, `%a, %b`, or `%a:2`, whose parts are `%a#0` and `%a#1`.
    fn results(&mut self, text: &str) -> Vec<Slot> {
        match text.split_once(':') {
            Some((name, n)) => (0..n.parse().unwrap_or(1))
                .map(|i: usize| self.slot(&format!("{name}#{i}")))
                .collect(),
            None => self.slots(text),
        }
    }

    fn operand(&mut self, text: &str) -> Result<Operand> {
        if text.starts_with('%') {
            return Ok(Operand::Value(self.slot(text)));
        }
        let number = text.parse().map_err(|_| Error::new(format!("`{text}` is no number")))?;
        Ok(Operand::Number(number))
    }

    fn operands(&mut self, list: &str) -> Result<Vec<Operand>> {
        split(list).into_iter().map(|o| self.operand(o)).collect()
    }

    fn arithmetic(&mut self, name: &str, rest: &str, result: Slot) -> Result<Operation> {
        let (args, types) = rest.split_once(" : ").ok_or("no type")?;
        let mut args: Vec<&str> = split(args);
        let mut name = name.to_owned();
        if name.starts_with("cmp") {
            name = format!("{name} {}", args.remove(0));
        }
        // `overflow<nsw>` and the like change no result.
        let args = args.into_iter().map(|a| self.slot(a.split(' ').next().unwrap_or(a))).collect();
        let (from, to) = types.split_once(" to ").unwrap_or((types, types));
        Ok(Operation::Arithmetic {
            result,
            name,
            args,
            from: Kind::of(from.trim()),
            to: Kind::of(to.trim()),
        })
    }

    fn view(&mut self, name: &str, rest: &str, results: &[Slot]) -> Result<Operation> {
        let (what, types) = rest.split_once(" : ").ok_or("no type")?;
        let source_name = what.split([' ', '[', ',']).next().unwrap_or("");
        let source = self.slot(source_name);
        let result = || results.first().copied().ok_or_else(|| Error::new("no result"));
        Ok(match name {
            "memref.cast" => Operation::Same { result: result()?, source },
            "memref.load" => {
                let indices = self.slots(between(what, "[", "]")?);
                Operation::Load { result: result()?, source, indices }
            }
            "memref.store" => {
                let (value, target) = what.split_once(", ").ok_or("no target")?;
                let (target, indices) = target.split_once('[').ok_or("no index")?;
                let indices = self.slots(indices.trim_end_matches(']'));
                Operation::Store { value: self.slot(value), target: self.slot(target), indices }
            }
            "memref.reinterpret_cast" => {
                let list = |key: &str| between(what, key, "]");
                let offset = self.operand(list("offset: [")?)?;
                let sizes = self.operands(list("sizes: [")?)?;
                let strides = self.operands(list("strides: [")?)?;
                Operation::Reinterpret { result: result()?, source, offset, sizes, strides }
            }
            "memref.subview" => {
                let mut lists = what.split('[').skip(1).map(|l| l.split(']').next().unwrap_or(""));
                let mut next = || self.operands(lists.next().unwrap_or(""));
                let (offsets, sizes, strides) = (next()?, next()?, next()?);
                let to = array(types.rsplit_once(" to ").ok_or("no type")?.1)?;
                Operation::Subview { result: result()?, source, offsets, sizes, strides, to }
            }
            "memref.collapse_shape" | "memref.expand_shape" => {
                let (groups, rest) = behind(&what[what.find('[').ok_or("no groups")?..]);
                let numbers = |g: &str| {
                    g.trim_matches(['[', ']'])
                        .split(',')
                        .filter_map(|n| n.trim().parse().ok())
                        .collect()
                };
                let groups: Vec<Vec<usize>> = split(groups).into_iter().map(numbers).collect();
                if name == "memref.collapse_shape" {
                    return Ok(Operation::Collapse { result: result()?, source, groups });
                }
                let shape = self.operands(between(rest, "[", "]")?)?;
                Operation::Expand { result: result()?, source, groups, shape }
            }
            _ => return Err(Error::new(format!("unknown operation `{name}`"))),
        })
    }

    /// `%i = %a to %b step %c iter_args(%x = %y) -> (f32) : i32 {`
    fn for_loop<'a, I: Iterator<Item = (usize, &'a str)>>(
        &mut self,
        rest: &str,
        results: Vec<Slot>,
        lines: &mut Lines<'a, I>,
    ) -> Result<Operation> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [index, "=", from, "to", to, "step", step, ..] = words[..] else {
            return Err(Error::new("not the form of a loop"));
        };
        let bounds = [from, to, step].map(|w| self.slot(w));
        let index = self.slot(index);
        let mut carried = Vec::new();
        if let Some(open) = rest.find("iter_args(") {
            for pair in split(behind(&rest[open + "iter_args".len()..]).0) {
                let (inner, outer) = pair.split_once(" = ").ok_or("`=` is missing")?;
                carried.push((self.slot(inner), self.slot(outer)));
            }
        }
        let (body, _) = self.block(lines)?;
        Ok(Operation::For { index, bounds, carried, results, body })
    }

    fn if_else<'a, I: Iterator<Item = (usize, &'a str)>>(
        &mut self,
        rest: &str,
        results: Vec<Slot>,
        lines: &mut Lines<'a, I>,
    ) -> Result<Operation> {
        let condition = self.slot(rest.split(' ').next().unwrap_or(""));
        let (yes, end) = self.block(lines)?;
        let no = if end.starts_with("} else") { self.block(lines)?.0 } else { Vec::new() };
        Ok(Operation::If { condition, results, branches: [yes, no] })
    }
}

fn clean(list: &str) -> String {
    list.split(',').map(str::trim).filter(|p| !p.is_empty()).collect::<Vec<_>>().join(", ")
}

fn constant(result: Slot, rest: &str) -> Result<Operation> {
    let (text, ty) = rest.split_once(" : ").unwrap_or((rest, "i1"));
    let kind = Kind::of(ty.trim()).ok_or_else(|| Error::new(format!("unknown type `{ty}`")))?;
    let bad = || Error::new(format!("`{text}` is no number"));
    if !kind.is_float() {
        let value = match text.trim() {
            "true" => 1,
            "false" => 0,
            number => number.parse().map_err(|_| bad())?,
        };
        return Ok(Operation::Integer { result, value });
    }
    let value = match text.trim().strip_prefix("0x") {
        None => text.trim().parse().map_err(|_| bad())?,
        Some(hex) => {
            let bits = u32::from_str_radix(hex, 16).map_err(|_| bad())?;
            super::number::decode(u64::from(bits), kind)
        }
    };
    Ok(Operation::Float { result, value })
}
