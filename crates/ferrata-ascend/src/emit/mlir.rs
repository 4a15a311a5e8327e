//! Text of MLIR: lines, names of values, index arithmetic.

use std::fmt::Display;

/// A function body under construction.
#[derive(Debug, Default)]
pub(crate) struct Text {
    lines: String,
    names: usize,
    depth: usize,
}

impl Text {
    /// Appends a line.
    pub fn line(&mut self, line: impl Display) {
        let indent = 2 * (self.depth + 2);
        self.lines.push_str(&format!("{:indent$}{line}\n", ""));
    }

    /// Appends an operation with one result and returns its name.
    pub fn value(&mut self, operation: impl Display) -> String {
        let name = self.name();
        self.line(format_args!("{name} = {operation}"));
        name
    }

    /// A name that nothing has yet.
    pub fn name(&mut self) -> String {
        self.names += 1;
        format!("%v{}", self.names)
    }

    /// Begins a region.
    pub fn open(&mut self, head: impl Display) {
        self.line(format_args!("{head} {{"));
        self.depth += 1;
    }

    /// Ends a region.
    pub fn close(&mut self) {
        self.close_with("");
    }

    /// Ends a region, with something behind it.
    pub fn close_with(&mut self, behind: impl Display) {
        self.depth -= 1;
        self.line(format_args!("}} {behind}"));
    }

    /// A constant of type `index`.
    pub fn index(&mut self, n: usize) -> String {
        self.value(format_args!("arith.constant {n} : index"))
    }

    /// Everything so far.
    pub fn finish(self) -> String {
        self.lines
    }
}

/// A sum of multiples of index values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Affine {
    /// What is added.
    pub constant: isize,
    /// Values and their factors.
    pub terms: Vec<(String, isize)>,
}

impl Affine {
    /// A number.
    pub fn number(n: usize) -> Affine {
        Affine { constant: n as isize, terms: Vec::new() }
    }

    /// A multiple of a value.
    pub fn times(name: &str, factor: usize) -> Affine {
        Affine { constant: 0, terms: vec![(name.to_owned(), factor as isize)] }
    }

    /// `constant` and for each step as many as its factor.
    pub fn sum(constant: usize, steps: &[Affine], factors: &[isize]) -> Affine {
        let mut sum = Affine::number(constant);
        steps.iter().zip(factors).for_each(|(step, &factor)| sum.add(step, factor));
        sum
    }

    /// A multiple of this one.
    pub fn scaled(&self, factor: usize) -> Affine {
        Affine::sum(0, std::slice::from_ref(self), &[factor as isize])
    }

    /// How many of `size` steps from here on are below `count`: a value of type `index`.
    pub fn left(&self, text: &mut Text, count: usize, size: usize) -> String {
        let mut left = Affine::number(count);
        left.add(self, -1);
        let left = left.write(text);
        let size = text.index(size);
        text.value(format_args!("arith.minsi {left}, {size} : index"))
    }

    /// Adds `factor` times another one.
    pub fn add(&mut self, other: &Affine, factor: isize) {
        if factor == 0 {
            return;
        }
        self.constant += other.constant * factor;
        self.terms.extend(other.terms.iter().map(|(name, f)| (name.clone(), f * factor)));
    }

    /// The value of type `index`.
    pub fn write(&self, text: &mut Text) -> String {
        let mut sum: Option<String> = None;
        for (name, factor) in &self.terms {
            let term = if *factor == 1 {
                name.clone()
            } else {
                let factor = text.value(format_args!("arith.constant {factor} : index"));
                text.value(format_args!("arith.muli {name}, {factor} : index"))
            };
            sum = Some(match sum {
                None => term,
                Some(sum) => text.value(format_args!("arith.addi {sum}, {term} : index")),
            });
        }
        match sum {
            Some(sum) if self.constant == 0 => sum,
            sum => {
                let constant = self.constant;
                let constant = text.value(format_args!("arith.constant {constant} : index"));
                match sum {
                    None => constant,
                    Some(sum) => text.value(format_args!("arith.addi {sum}, {constant} : index")),
                }
            }
        }
    }
}

/// `8x100` for a shape, with `?` for sizes that are known at run time only.
fn sizes(shape: &[Option<usize>]) -> String {
    let size = |n: &Option<usize>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    shape.iter().map(size).collect::<Vec<_>>().join("x")
}

/// The type of a dense tensor.
pub(crate) fn tensor(shape: &[usize], element: &str) -> String {
    let shape: Vec<Option<usize>> = shape.iter().map(|&n| Some(n)).collect();
    tensor_of(&shape, element)
}

/// The type of a tensor some of whose sizes are known at run time only.
pub(crate) fn tensor_of(shape: &[Option<usize>], element: &str) -> String {
    format!("tensor<{}x{element}>", sizes(shape))
}

/// A list of numbers with commas.
pub(crate) fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// A window on global memory or on a buffer: the type of a strided array.
pub(crate) fn memref(
    shape: &[Option<usize>],
    strides: &[isize],
    offset: bool,
    element: &str,
) -> String {
    let offset = if offset { ", offset: ?" } else { "" };
    format!("memref<{}x{element}, strided<[{}]{offset}>>", sizes(shape), list(strides))
}
