//! Printing.

use crate::error::Origin;
use crate::literal::{Literal, Scalar};
use crate::primitive::Attribute;
use crate::program::{Function, Node};
use std::collections::HashMap;
use std::fmt::{self, Display, Formatter, Write};

/// The printed name of each function, by address.
type Names = HashMap<*const Function, String>;

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut order = Vec::new();
        reach(self, &mut Default::default(), &mut order);
        let mut used: HashMap<&str, usize> = HashMap::new();
        let mut names = Names::new();
        for function in &order {
            let count = used.entry(&function.name).or_default();
            *count += 1;
            let mut name = format!("@{}", Word(&function.name));
            if *count > 1 {
                write!(name, "#{count}")?;
            }
            names.insert(*function, name);
        }
        for (i, function) in order.iter().enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            print(function, &names, f)?;
        }
        Ok(())
    }
}

/// All functions that `function` needs, callees first, each once.
fn reach<'a>(
    function: &'a Function,
    seen: &mut std::collections::HashSet<*const Function>,
    order: &mut Vec<&'a Function>,
) {
    if !seen.insert(function) {
        return;
    }
    for callee in function.nodes().iter().flat_map(|n| n.op.functions()) {
        reach(callee, seen, order);
    }
    if let Some(own) = &function.derivative {
        reach(&own.forward, seen, order);
        reach(&own.backward, seen, order);
    }
    order.push(function);
}

fn print(function: &Function, names: &Names, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "func {}(", names[&std::ptr::from_ref(function)])?;
    list(f, function.parameters(), |f, &v| write!(f, "%{}: {}", v.0, function.ty(v)))?;
    f.write_str(") -> (")?;
    list(f, function.results(), |f, &v| write!(f, "{}", function.ty(v)))?;
    f.write_str(")")?;
    if let Some(composite) = &function.composite {
        write!(f, " composite {}", Quoted(composite.name))?;
        attributes(f, &composite.attributes, names)?;
    }
    if let Some(own) = &function.derivative {
        let name = |g: &Function| &names[&std::ptr::from_ref(g)];
        write!(f, " derivative({}, {})", name(&own.forward), name(&own.backward))?;
    }
    f.write_str(" {\n")?;
    for node in function.nodes() {
        statement(f, function, node, names)?;
    }
    f.write_str("  return")?;
    if !function.results().is_empty() {
        f.write_char(' ')?;
    }
    list(f, function.results(), |f, v| write!(f, "%{}", v.0))?;
    f.write_str("\n}\n")
}

fn statement(
    f: &mut Formatter<'_>,
    function: &Function,
    node: &Node,
    names: &Names,
) -> fmt::Result {
    f.write_str("  ")?;
    list(f, &node.outputs, |f, v| write!(f, "%{}", v.0))?;
    write!(f, "{}= {}(", if node.outputs.is_empty() { "" } else { " " }, node.op.rules().name())?;
    list(f, &node.inputs, |f, v| write!(f, "%{}", v.0))?;
    f.write_char(')')?;
    attributes(f, &node.op.rules().write(), names)?;
    f.write_str(" : ")?;
    list(f, &node.outputs, |f, &v| write!(f, "{}", function.ty(v)))?;
    let Origin { scope, location } = &node.origin;
    if !scope.is_empty() {
        write!(f, " scope {}", Quoted(scope))?;
    }
    if let Some(l) = location {
        write!(f, " at {}:{}", Quoted(&l.file), l.line)?;
    }
    f.write_char('\n')
}

/// Items with commas between them.
fn list<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    mut each: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

fn attributes(
    f: &mut Formatter<'_>,
    all: &[(&'static str, Attribute)],
    names: &Names,
) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    f.write_str(" {")?;
    list(f, all, |f, (name, value)| {
        write!(f, "{} = ", Word(name))?;
        attribute(f, value, names)
    })?;
    f.write_str("}")
}

fn attribute(f: &mut Formatter<'_>, value: &Attribute, names: &Names) -> fmt::Result {
    match value {
        Attribute::Int(i) => write!(f, "{i}"),
        Attribute::Ints(v) => {
            f.write_char('[')?;
            list(f, v, |f, i| write!(f, "{i}"))?;
            f.write_char(']')
        }
        // The bits of a NaN are part of a constant's identity.
        Attribute::Scalar(Scalar::Float(x)) if x.is_nan() => write!(f, "nan:{:#018x}", x.to_bits()),
        Attribute::Scalar(x) => write!(f, "{x}"),
        Attribute::Bool(b) => write!(f, "{b}"),
        Attribute::Word(w) => write!(f, "{}", Word(w)),
        Attribute::Text(t) => write!(f, "{}", Quoted(t)),
        Attribute::Type(ty) => write!(f, "{ty}"),
        Attribute::Types(types) => {
            f.write_char('(')?;
            list(f, types, |f, ty| write!(f, "{ty}"))?;
            f.write_char(')')
        }
        Attribute::Function(g) => f.write_str(&names[&std::sync::Arc::as_ptr(g)]),
        Attribute::Functions(all) => {
            f.write_char('(')?;
            list(f, all, |f, g| f.write_str(&names[&std::sync::Arc::as_ptr(g)]))?;
            f.write_char(')')
        }
        Attribute::Literal(x) => literal(f, x),
    }
}

/// Type, then the little-endian bytes of each element.
fn literal(f: &mut Formatter<'_>, x: &Literal) -> fmt::Result {
    write!(f, "{}:0x", x.ty)?;
    x.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A bare word, quoted where it is none.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let starts = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts && self.0.chars().all(super::lexer::in_word) {
            f.write_str(self.0)
        } else {
            Quoted(self.0).fmt(f)
        }
    }
}

/// Text between quotes, with `\"`, `\\`, `\n` and `\u{..}` for what cannot stand there.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
